"""What the GCS emulator leaves out and Google does: pages, generations, limits of a batch.

Source: "Cloud Storage JSON API", Objects: list, Objects: get; "Batch requests"; "Preconditions".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from tests.standins.forwarder import Forwarder, Reply, Request, forwarder
from tests.support.programs import http

_BATCH_LIMIT = 100
# Google may give less than it is asked for; the emulator is too slow for pages of 1,000.
_PAGE_LIMIT = 60


@contextlib.contextmanager
def run_gcs_pages(port: int) -> Iterator[Forwarder]:
    """Stand in front of the emulator at a port."""
    with forwarder(port, lambda request: _answer(port, request)) as running:
        yield running


def _answer(port: int, request: Request) -> Reply | None:
    address = urlsplit(request.path)
    if address.path.startswith("/batch/"):
        is_too_large = request.body.count(b"Content-Type: application/http") > _BATCH_LIMIT
        return Reply(400, b"{}") if is_too_large else None
    if request.method == "GET" and "alt=media" in address.query:
        return _content(port, request)
    if request.method != "GET" or not address.path.endswith("/o"):
        return None
    found = http(f"http://127.0.0.1:{port}{request.path}")
    if found.status != 200:
        return Reply(found.status, found.body)
    query = {name: values[-1] for name, values in parse_qs(address.query).items()}
    page = json.dumps(_page(json.loads(found.body), query)).encode()
    return Reply(200, page, {"Content-Type": "application/json"})


def _content(port: int, request: Request) -> Reply | None:
    """The content of an object, with its generation; refused when it has another one."""
    address = urlsplit(request.path)
    upstream = f"http://127.0.0.1:{port}"
    found = http(upstream + address.path.removeprefix("/download"))
    if found.status != 200:
        return None
    about = json.loads(found.body)
    query = parse_qs(address.query)
    wanted = query.get("ifGenerationMatch") or query.get("generation") or [about["generation"]]
    if wanted != [about["generation"]]:
        return Reply(412, b"{}")
    asked = re.fullmatch(r"bytes=(\d+)-\d*", request.headers.get("range", "bytes=0-"))
    if asked is None or ("range" in request.headers and int(asked[1]) >= int(about["size"])):
        return Reply(416, b"{}")
    headers = {"Range": request.headers["range"]} if "range" in request.headers else {}
    answer = http(upstream + request.path, headers=headers)
    return Reply(answer.status, answer.body, {"X-Goog-Generation": about["generation"]})


def _page(document: dict[str, list[object]], query: dict[str, str]) -> dict[str, object]:
    """One page of what the emulator gives at once."""
    start, size = query.get("startOffset", ""), int(query.get("maxResults", _PAGE_LIMIT))
    size = min(size, _PAGE_LIMIT)
    entries: list[tuple[str, object]] = [
        *((entry["name"], entry) for entry in document.get("items") or []),  # type: ignore[index]
        *((str(folder), folder) for folder in document.get("prefixes") or []),
    ]
    token = query.get("pageToken", "")
    left = sorted((e for e in entries if e[0] >= start and e[0] > token), key=lambda e: e[0])
    some = [entry for _, entry in left[:size]]
    page: dict[str, object] = {
        "items": [entry for entry in some if isinstance(entry, dict)],
        "prefixes": [entry for entry in some if isinstance(entry, str)],
    }
    if len(left) > size:
        page["nextPageToken"] = left[size - 1][0]
    fields = query.get("fields", "")
    return {name: value for name, value in page.items() if value and (not fields or name in fields)}
