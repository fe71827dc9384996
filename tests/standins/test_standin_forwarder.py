"""What stands in front of servers passes on, counts, answers and cuts as the tests believe."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.standins.forwarder import Cut, Reply, Request, forwarder
from tests.standins.gcs_pages import run_gcs_pages
from tests.support.programs import http as http_get

OBJECTS = [{"name": name} for name in ("a/1", "a/2", "b")]


@pytest.fixture
def emulator() -> Iterator[int]:
    """The port of a server that gives all of its objects at once."""
    found = json.dumps({"items": OBJECTS, "prefixes": ["c/"]}).encode()
    with forwarder(0, lambda _: Reply(200, found)) as running:
        yield running.port


def test_requests_are_passed_on_counted_and_answered() -> None:
    with (
        forwarder(0, lambda request: Reply(418, request.body)) as target,
        forwarder(target.port) as between,
    ):
        answer = http_get(f"{between.url}/x?y=%20", method="PUT", body=b"z", headers={"X-A": "b"})
        assert (answer.status, answer.body) == (418, b"z")
        between.answers = lambda request: Reply(503) if request.number == 2 else None
        assert [http_get(f"{between.url}/x").status for _ in range(2)] == [503, 418]
    first = target.requests[0]
    assert (first.method, first.path, first.headers["x-a"]) == ("PUT", "/x?y=%20", "b")
    assert [len(between.requests), len(target.requests)] == [3, 2]


def test_an_answer_breaks_off() -> None:
    with (
        forwarder(0, lambda _: Reply(200, b"12345")) as target,
        forwarder(target.port, lambda _: Cut(2)) as between,
        pytest.raises(http.client.IncompleteRead) as failure,
    ):
        http_get(f"{between.url}/x")
    assert failure.value.partial == b"12"


def listed(url: str) -> dict[str, object]:
    return http_get(url).json()


def test_gcs_gives_pages_from_an_offset_with_the_fields_that_are_asked_for(emulator: int) -> None:
    with run_gcs_pages(emulator) as google:
        url = f"{google.url}/storage/v1/b/x/o?maxResults=2"
        first = listed(url)
        assert first == {"items": OBJECTS[:2], "nextPageToken": "a/2"}
        assert listed(f"{url}&pageToken=a/2") == {"items": OBJECTS[2:], "prefixes": ["c/"]}
        assert listed(f"{url}&startOffset=b")["items"] == OBJECTS[2:]
        assert "nextPageToken" not in listed(f"{url}&fields=items(name)")
        assert listed(f"{url}&pageToken=b&fields=prefixes") == {"prefixes": ["c/"]}


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 400)])
def test_gcs_takes_a_hundred_requests_in_a_batch(emulator: int, count: int, status: int) -> None:
    body = b"Content-Type: application/http\r\n" * count
    with run_gcs_pages(emulator) as google:
        assert http_get(f"{google.url}/batch/storage/v1", method="POST", body=body).status == status


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 200),
        ("", {"Range": "bytes=1-3"}, 206),
        ("", {"Range": "bytes=5-9"}, 416),
        ("&ifGenerationMatch=7", {}, 200),
        ("&ifGenerationMatch=8", {}, 412),
    ],
)
def test_gcs_tells_the_generation_of_a_content(
    query: str, headers: dict[str, str], status: int
) -> None:
    def emulate(request: Request) -> Reply:
        if "alt=media" in request.path:
            return Reply(206 if "range" in request.headers else 200, b"12345")
        return Reply(200, json.dumps({"generation": "7", "size": "5"}).encode())

    with forwarder(0, emulate) as target, run_gcs_pages(target.port) as google:
        url = f"{google.url}/download/storage/v1/b/x/o/a?alt=media{query}"
        answer = http_get(url, headers=headers)
    assert answer.status == status
    assert status >= 400 or answer.headers["X-Goog-Generation"] == "7"
