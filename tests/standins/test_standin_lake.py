"""The stand-in for Data Lake does what Azure's documentation says, and refuses the rest."""

from __future__ import annotations

import pytest

from tests.standins.lake import Lake, run_lake
from tests.support.programs import Answer, http


def ask(lake: Lake, method: str, path: str, **query: str) -> Answer:
    """One request with the right signature."""
    words = "&".join(
        f"{name}={value}" for name, value in {"sig": "hiddenhidden%3D", **query}.items()
    )
    return http(f"http://127.0.0.1:{lake.port}/{path}?{words}", method=method)


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
