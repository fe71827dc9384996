"""Lines of an index, written and read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.backup.index import ArtifactEntry, FolderEntry, read_files, read_folders
from mlflow_server.errors import BadInputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNTS = st.integers(0, 2**63 - 1)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
PACKS = ["20261121T134115Z/00001.tar", "20261121T134115Z/00002.tar"]
FILES = st.tuples(TEXTS, COUNTS, DIGESTS, TEXTS, st.integers(0, 1), COUNTS)
ENTRIES = st.builds(FolderEntry, TEXTS, TEXTS, st.just(PACKS), st.lists(FILES, min_size=1))
GOOD: dict[str, Any] = {
    "location": "mlflow-artifacts:/1",
    "folder": "model",
    "packs": PACKS,
    "files": [["MLmodel", 5, "a" * 64, "5-1-2", 1, 512]],
}


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_written_is_read(entries: list[FolderEntry]) -> None:
    lines = [entry.as_line() for entry in entries]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert read_folders(lines, "index") == entries
    files = list(read_files(lines, "index"))
    assert len(files) == sum(len(entry.files) for entry in entries)


def test_a_file_is_named_from_its_location_on() -> None:
    whole = ArtifactEntry("mlflow-artifacts:/1", "model/MLmodel", 5, "a" * 64, PACKS[1], 512)
    assert list(read_files([json.dumps(GOOD).encode()], "index")) == [whole]
    line = json.dumps(GOOD | {"folder": ""}).encode()
    assert list(read_files([line], "index")) == [whole._replace(path="MLmodel")]


def _file(place: int, value: Any) -> dict[str, Any]:
    """The good line with another value in its file."""
    (file,) = GOOD["files"]
    return GOOD | {"files": [[*file[:place], value, *file[place + 1 :]]]}


BAD: list[Any] = [
    None, 1, "x", [], {}, GOOD | {"files": []}, GOOD | {"files": {}}, GOOD | {"files": "ab"},
    GOOD | {"files": [[]]}, GOOD | {"files": [GOOD["files"][0] + [1]]}, GOOD | {"files": [None]},
    GOOD | {"packs": []}, GOOD | {"packs": [PACKS[0]]}, GOOD | {"packs": [1, 2]},
    GOOD | {"packs": "ab"}, GOOD | {"location": None}, GOOD | {"folder": 1},
    GOOD | {"folder": "\ud800"}, GOOD | {"location": ["x"]},
    {key: value for key, value in GOOD.items() if key != "folder"},
    *(_file(0, value) for value in (None, 1, ["x"], "\udcff")),
    *(_file(1, value) for value in (None, True, 1.0, "1", -1, 2**63)),
    *(_file(2, value) for value in (None, "a" * 63, "a" * 65, "A" * 64, "a" * 63 + "\n", 1)),
    *(_file(3, value) for value in (None, 1, "\udcff")),
    *(_file(4, value) for value in (None, True, -1, 2, "0", 0.0)),
    *(_file(5, value) for value in (None, True, -1, 2**63, 1e300)),
]  # fmt: skip


@pytest.mark.parametrize("document", BAD)
def test_what_is_no_line(document: Any) -> None:
    good, bad = json.dumps(GOOD).encode(), json.dumps(document).encode()
    for lines in ([bad], [good, bad], [bad, good]):
        with pytest.raises(BadInputError, match="index: a line is damaged"):
            read_folders(lines, "index")


@pytest.mark.parametrize(
    "line", [b"", b"{", b"\xff", b"[" * 1_000_000, b"1" * 10_000, b'{"a":NaN}', b"{},{}"]
)
def test_what_is_no_json(line: bytes) -> None:
    with pytest.raises(BadInputError, match="a line is damaged"):
        read_folders([line], "index")
