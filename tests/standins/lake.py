"""As much of Azure Data Lake Storage as is asked for: one file system, one access signature.

Folders are real, as in an account with a hierarchical namespace; what is not understood is
refused. Nothing else speaks this language, so what a real Data Lake answers is not covered.

Source: "Data Lake Storage Gen2 REST API", Path - Create, Update, Read, List, Delete; "Blob Storage
REST API", Get Blob Properties.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
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
        stamps: Their ETags, by path; another one for each change.
        folders: Their paths.
        seen: The actions that it was asked for.
    """

    port: int = 0
    broken: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)

    def make(self, path: str, content: bytes) -> None:
        """Put a file there, and the folders above it."""
        above = path.rpartition("/")[0]
        while above:
            self.folders.add(above)
            above = above.rpartition("/")[0]
        self.put(path, content)

    def put(self, path: str, content: bytes) -> None:
        """Change a file."""
        self.files[path] = content
        self.stamps[path] = f'"0x{next(_numbers):016X}"'


_numbers = itertools.count(1)


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
                    told = {name.lower(): value for name, value in self.headers.items()}
                    asked = _Request(self.command, path, query, told, body)
                    status, headers, content = _answer(lake, asked)
            except _Refusal as refusal:
                status, headers, content = refusal.status, {"x-ms-error-code": refusal.code}, b""
            self.send_response(status)
            for name, value in {"Last-Modified": _now(), **headers}.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
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


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


def _answer(lake: Lake, asked: _Request) -> _Answer:
    path, query = asked.path, asked.query
    action = _action(asked)
    lake.seen.append(action)
    if action == lake.broken:
        raise _Refusal(500, "InternalError")
    if action == "list":
        return _list(lake, query)
    if action == "create":
        lake.make(path, b"")
        return 201, {"ETag": lake.stamps[path]}, b""
    if action == "rename":
        return _rename(lake, asked)
    if path not in lake.files and path not in lake.folders:
        raise _Refusal(404, "BlobNotFound" if asked.method == "HEAD" else "PathNotFound")
    match action:
        case "append":
            if int(query["position"]) != len(lake.files[path]):
                raise _Refusal(400, "InvalidFlushPosition")
            lake.put(path, lake.files[path] + asked.body)
            return 202, {}, b""
        case "flush":
            if int(query["position"]) != len(lake.files[path]):
                raise _Refusal(400, "InvalidFlushPosition")
            return 200, {"ETag": lake.stamps[path]}, b""
        case "read":
            return _read(lake, asked)
        case "properties" if path in lake.folders:
            return 200, {"x-ms-meta-hdi_isfolder": "true", "ETag": '"1"'}, b""
        case "properties":
            size = str(len(lake.files[path]))
            return 200, {"ETag": lake.stamps[path], "Content-Length": size}, b""
        case "delete":
            _delete(lake, path, query)
    return 200, {}, b""


def _read(lake: Lake, asked: _Request) -> _Answer:
    """A range of a file, which is refused when nothing is in it; all of it without one."""
    if asked.path in lake.folders:
        return 200, {"x-ms-meta-hdi_isfolder": "true", "ETag": '"1"'}, b""
    content, stamp = lake.files[asked.path], lake.stamps[asked.path]
    if asked.headers.get("if-match", stamp) != stamp:
        raise _Refusal(412, "ConditionNotMet")
    wanted = asked.headers.get("x-ms-range") or asked.headers.get("range")
    if wanted is None:
        return 200, {"ETag": stamp}, content
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    assert found is not None, wanted
    start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > end:
        raise _Refusal(416, "InvalidRange")
    told = {"ETag": stamp, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return 206, told, content[start : end + 1]


def _rename(lake: Lake, asked: _Request) -> _Answer:
    """Rename a file over whatever file is there."""
    source = urlsplit(asked.headers["x-ms-rename-source"])
    system, _, path = unquote(source.path).lstrip("/").partition("/")
    if system != FILE_SYSTEM or parse_qs(source.query).get("sig") != [SIGNATURE]:
        raise _Refusal(403, "AuthenticationFailed")
    if path not in lake.files:
        raise _Refusal(404, "RenameSourceParentPathNotFound")
    if asked.path in lake.folders:
        raise _Refusal(409, "PathAlreadyExists")
    lake.make(asked.path, lake.files.pop(path))
    return 201, {"ETag": lake.stamps[asked.path]}, b""


def _action(asked: _Request) -> str:
    query = asked.query
    match asked.method, query.get("resource"), query.get("action"):
        case "GET", "filesystem", None if not asked.path:
            return "list"
        case "PUT", None, None if "x-ms-rename-source" in asked.headers:
            return "rename"
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
        else {
            "name": name,
            "lastModified": _now(),
            "contentLength": str(len(lake.files[name])),
            "etag": lake.stamps[name].strip('"'),
        }
        for name in left[:size]
    ]
    headers = {"Content-Type": "application/json"}
    if len(left) > size:
        headers["x-ms-continuation"] = left[size - 1]
    return 200, headers, json.dumps({"paths": paths}).encode()
