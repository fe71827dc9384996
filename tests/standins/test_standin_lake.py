"""The stand-in for Data Lake does what Azure's documentation says, and refuses the rest."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.standins.lake import Lake, run_lake
from tests.support.programs import Answer, http


def ask(
    lake: Lake,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    **query: str,
) -> Answer:
    """One request with the right signature."""
    words = "&".join(
        f"{name}={value}" for name, value in {"sig": "hiddenhidden%3D", **query}.items()
    )
    return http(
        f"http://127.0.0.1:{lake.port}/{path}?{words}",
        method=method,
        body=body,
        headers=headers or {},
    )


def test_it_lists_pages_of_a_folder() -> None:
    with run_lake() as lake:
        for number in range(150):
            lake.make(f"a/b/{number:03}", b"12345")
        lake.make("a/c", b"")
        query = {"resource": "filesystem", "directory": "a"}
        first = ask(lake, "GET", "files", recursive="true", **query)
        assert len(first.json()["paths"]) == 100  # type: ignore[arg-type]
        token = first.headers["x-ms-continuation"]
        rest = ask(lake, "GET", "files", recursive="true", continuation=token, **query)
        assert len(rest.json()["paths"]) == 52  # type: ignore[arg-type]
        flat = ask(lake, "GET", "files", recursive="false", **query).json()["paths"]
        assert [entry["name"] for entry in flat] == ["a/b", "a/c"]  # type: ignore[attr-defined]


def test_it_deletes_full_folders_only_when_told_so() -> None:
    with run_lake() as lake:
        lake.make("a/b/c", b"")
        lake.make("a/bc", b"")
        assert ask(lake, "DELETE", "files/a/b").status == 400
        assert ask(lake, "DELETE", "files/a/b", recursive="false").status == 409
        assert ask(lake, "DELETE", "files/a/b", recursive="true").status == 200
        assert ask(lake, "DELETE", "files/a/b", recursive="true").status == 404
        assert (set(lake.files), lake.folders) == ({"a/bc"}, {"a"})


def test_it_reads_ranges_of_one_state() -> None:
    with run_lake() as lake:
        lake.make("a/b", b"12345")
        lake.make("empty", b"")
        stamp = ask(lake, "HEAD", "files/a/b").headers["ETag"]

        def read(path: str, wanted: str, known: str = stamp) -> tuple[int, bytes]:
            found = ask(lake, "GET", path, headers={"Range": wanted, "If-Match": known})
            return found.status, found.body

        assert read("files/a/b", "bytes=1-2") == (206, b"23")
        assert read("files/a/b", "bytes=3-") == (206, b"45")
        assert read("files/a/b", "bytes=5-9")[0] == 416
        assert read("files/empty", "bytes=0-9", lake.stamps["empty"])[0] == 416
        lake.put("a/b", b"54321")
        assert read("files/a/b", "bytes=1-2")[0] == 412
        assert ask(lake, "GET", "files/a/b").body == b"54321"


def test_it_writes_where_the_last_one_has_ended_and_renames() -> None:
    with run_lake() as lake:
        lake.make("a/old", b"old")
        assert ask(lake, "PUT", "files/a/new", resource="file").status == 201
        query = {"action": "append", "position": "0"}
        assert ask(lake, "PATCH", "files/a/new", b"123", **query).status == 202
        assert ask(lake, "PATCH", "files/a/new", b"123", **query).status == 400
        assert ask(lake, "PATCH", "files/a/new", action="flush", position="3").status == 200
        for signature, status in (("wrong", 403), ("hiddenhidden%3D", 201)):
            source = {"x-ms-rename-source": f"/files/a/new?sig={signature}"}
            assert ask(lake, "PUT", "files/a/old", headers=source).status == status
        assert lake.files == {"a/old": b"123"}


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", "files", {"sig": "x", "resource": "filesystem", "recursive": "true"}, 403),
        ("GET", "other", {"resource": "filesystem", "recursive": "true"}, 404),
        ("GET", "files", {"resource": "filesystem", "recursive": "true", "directory": "x"}, 404),
        ("GET", "files/x", {}, 404),
        ("HEAD", "files/x", {}, 404),
        ("POST", "files/x", {}, 501),
        ("PUT", "files/x", {"resource": "directory"}, 400),
    ],
)
def test_it_refuses_what_it_does_not_know(
    method: str, path: str, query: dict[str, str], status: int
) -> None:
    with run_lake() as lake:
        assert ask(lake, method, path, **query).status == status
