"""As much of Azure Data Lake Storage as is asked for: one file system, one access signature.

Folders are real, as in an account with a hierarchical namespace; what is not understood is
refused. Nothing else speaks this language, so what a real Data Lake answers is not covered.

Source: "Data Lake Storage Gen2 REST API", Path - Create, Update, Read, List, Delete; "Blob Storage
REST API", Get Blob Properties.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.standins.network import http_listener

FILE_SYSTEM = "files"
SIGNATURE = "hiddenhidden="
_PAGE_LIMIT = 100


@dataclass
class Lake:
    """A running one.

    Args:
        port: Where it listens on 127.0.0.1.
        broken: The action that it fails at, if any.
        files: Their content, by path.
        folders: Their paths.
        seen: The actions that it was asked for.
    """

    port: int = 0
    broken: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)

    def make(self, path: str, content: bytes) -> None:
        """Put a file there, and the folders above it."""
        above = path.rpartition("/")[0]
        while above:
            self.folders.add(above)
            above = above.rpartition("/")[0]
        self.files[path] = content


class _Refusal(Exception):
    """An answer that is none of success."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@contextlib.contextmanager
def run_lake(broken: str = "") -> Iterator[Lake]:
    """Start it on a free port, plain HTTP."""
    lake, lock = Lake(broken=broken), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: stderr belongs to pytest."""

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(address.query).items()}
            system, _, path = unquote(address.path).lstrip("/").partition("/")
            try:
                with lock:
                    if query.get("sig") != SIGNATURE:
                        raise _Refusal(403, "AuthenticationFailed")
                    if system != FILE_SYSTEM:
                        raise _Refusal(404, "FilesystemNotFound")
                    status, headers, content = _answer(lake, self.command, path, query, body)
            except _Refusal as refusal:
                status, headers, content = refusal.status, {"x-ms-error-code": refusal.code}, b""
            self.send_response(status)
            for name, value in {"Last-Modified": _now(), "ETag": '"1"', **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = _handle

    with http_listener(Handler) as port:
        lake.port = port
        yield lake


def _now() -> str:
    return formatdate(usegmt=True)


_Answer = tuple[int, dict[str, str], bytes]


def _answer(lake: Lake, method: str, path: str, query: dict[str, str], body: bytes) -> _Answer:
    action = _action(method, path, query)
    lake.seen.append(action)
    if action == lake.broken:
        raise _Refusal(500, "InternalError")
    if action == "list":
        return _list(lake, query)
    if action == "create":
        lake.make(path, b"")
        return 201, {}, b""
    if path not in lake.files and path not in lake.folders:
        raise _Refusal(404, "BlobNotFound" if method == "HEAD" else "PathNotFound")
    match action:
        case "append":
            lake.files[path] += body
            return 202, {}, b""
        case "read":
            content = lake.files[path]
            return 206, {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}, content
        case "properties":
            return 200, {"x-ms-meta-hdi_isfolder": "true"} if path in lake.folders else {}, b""
        case "delete":
            _delete(lake, path, query)
    return 200, {}, b""


def _action(method: str, path: str, query: dict[str, str]) -> str:
    match method, query.get("resource"), query.get("action"):
        case "GET", "filesystem", None if not path:
            return "list"
        case "PUT", "file", None:
            return "create"
        case "PATCH", None, ("append" | "flush") as action:
            return str(action)
        case "GET", None, None:
            return "read"
        case "HEAD", None, None:
            return "properties"
        case "DELETE", None, None:
            return "delete"
    raise _Refusal(400, "InvalidQueryParameterValue")


def _delete(lake: Lake, path: str, query: dict[str, str]) -> None:
    if path in lake.files:
        del lake.files[path]
        return
    if "recursive" not in query:
        raise _Refusal(400, "MissingRequiredQueryParameter")
    below = {name for name in (*lake.files, *lake.folders) if name.startswith(f"{path}/")}
    if below and query["recursive"] != "true":
        raise _Refusal(409, "DirectoryNotEmpty")
    lake.folders -= {path, *below}
    for name in below & lake.files.keys():
        del lake.files[name]


def _list(lake: Lake, query: dict[str, str]) -> _Answer:
    """A page of entries; the continuation is the last name of the page before."""
    folder = query.get("directory", "").strip("/")
    if folder and folder not in lake.folders:
        raise _Refusal(404, "PathNotFound")
    prefix = f"{folder}/" if folder else ""
    names = [name for name in (*lake.files, *lake.folders) if name.startswith(prefix)]
    if query["recursive"] != "true":
        names = [name for name in names if "/" not in name[len(prefix) :]]
    size = min(int(query.get("maxResults", "5000")), _PAGE_LIMIT)
    left = sorted(name for name in names if name > query.get("continuation", ""))
    paths = [
        {"name": name, "isDirectory": "true", "lastModified": _now(), "contentLength": "0"}
        if name in lake.folders
        else {"name": name, "lastModified": _now(), "contentLength": str(len(lake.files[name]))}
        for name in left[:size]
    ]
    headers = {"Content-Type": "application/json"}
    if len(left) > size:
        headers["x-ms-continuation"] = left[size - 1]
    return 200, headers, json.dumps({"paths": paths}).encode()
