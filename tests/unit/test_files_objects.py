"""What may lie in a bucket beside files: keys that no path can name, markers of folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.content import Source, chunks_of
from mlflow_server.artifacts.files import resuming
from mlflow_server.artifacts.files.files import File
from mlflow_server.artifacts.files.objects import ObjectFiles
from mlflow_server.errors import BadInputError, OpsError, UnavailableError, VanishedError
from mlflow_server.uris import parse_artifacts_destination


class FakeContent:
    """Breaks off after some bytes.

    Args:
        content: What is left.
        size_bytes: Of the whole.
        after: Where it breaks off.
    """

    stamp = "1"

    def __init__(self, content: bytes, size_bytes: int, after: int) -> None:
        self._left = content[:after]
        self._breaks = len(content) > after
        self.size_bytes = size_bytes

    def read(self, size: int) -> bytes:
        some, self._left = self._left[:size], self._left[size:]
        if not some and self._breaks:
            raise UnavailableError("broken off")
        return some

    def close(self) -> None:
        """Nothing is open."""


class FakeBucket:
    """Objects in memory, two on a page."""

    keys_per_request = 2
    can_skip = True
    has_folders = False

    def __init__(self, *keys: str) -> None:
        self.content = dict.fromkeys(keys, b"12345")
        self.refuses: dict[str, Refusal] = {}
        self.opened: list[tuple[int, str | None]] = []
        self.after = 1_000

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        keys = sorted(key for key in self.content if key.startswith(prefix))
        start = int(more or 0)
        found = [self._object(key) for key in keys[start : start + 2]]
        return Page(found, str(start + 2) if start + 2 < len(keys) else None)

    def list_folders(self, prefix: str) -> Iterator[str]:
        rest = [key[len(prefix) :] for key in self.content if key.startswith(prefix)]
        yield from sorted({key.partition("/")[0] for key in rest if "/" in key})

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        assert len(keys) <= 2
        return {key: self.refuses[key] for key in keys if key in self.refuses}

    def check(self, prefix: str) -> bool:
        return True

    def find(self, key: str) -> Object | None:
        return self._object(key) if key in self.content else None

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> FakeContent:
        self.opened.append((start, stamp))
        if key not in self.content:
            raise VanishedError("not there")
        whole = self.content[key]
        return FakeContent(whole[start:], len(whole), self.after)

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        self.content[key] = b"".join(chunks_of(source, size_bytes, key))

    def close(self) -> None:
        """Nothing is open."""

    def _object(self, key: str) -> Object:
        return Object(key, len(self.content[key]), None, stamp="1")


def files_of(bucket: FakeBucket, prefix: str = "p") -> ObjectFiles:
    """Those below a prefix."""
    store = parse_artifacts_destination(f"s3://bucket/{prefix}", plugin_schemes=frozenset())
    return ObjectFiles(bucket, store, "SUBJECT")


def test_keys_that_no_path_can_name_are_told() -> None:
    bad = ["p//x", "p/a/../b", "p/../x", "p/./x", "p/a/..", "p/..", "p/a/", "p/a\0b"]
    bucket = FakeBucket("p/a", "p/a//b", "p/ü", "p", "q/x", *bad)
    skipped: dict[str, OpsError] = {}
    found = [file.path for file in files_of(bucket).walk(on_skip=skipped.__setitem__)]
    assert found == ["a", "a//b", "ü"]
    assert sorted(skipped) == sorted(key[2:] for key in bad)
    assert all(isinstance(why, BadInputError) for why in skipped.values())
    assert [file.path for file in files_of(bucket).walk()] == found


def test_markers_of_folders_are_no_files() -> None:
    bucket = FakeBucket("p/a/x")
    bucket.content |= {"p/": b"", "p/a/": b"", "p/b/": b""}
    skipped: dict[str, OpsError] = {}
    files = files_of(bucket)
    assert list(files.walk(on_skip=skipped.__setitem__)) == [File("a/x", 5, "5-1")]
    assert skipped == {}
    assert list(files.folders()) == ["a", "b"]


def test_folders_that_no_path_can_name_are_left_out() -> None:
    bucket = FakeBucket("p/../x", "p/./x", "p//x", "p/a/x")
    assert list(files_of(bucket).folders()) == ["a"]


def test_a_prefix_with_slashes_of_its_own() -> None:
    bucket = FakeBucket("/p//q/a", "p/q/b", "a")
    assert [file.path for file in files_of(bucket, "/p//q").walk()] == ["a"]
    assert [file.path for file in files_of(bucket, "").walk()] == ["a", "p/q/b"]


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadInputError, match="not UTF-8"):
        files_of(FakeBucket()).write("caf\udce9", b"x")


def test_what_cannot_be_removed_is_told_and_the_rest_goes() -> None:
    bucket = FakeBucket()
    bucket.refuses = {"p/1": Refusal("not that one")}
    with pytest.raises(UnavailableError, match="not that one"):
        files_of(bucket).remove([str(number) for number in range(5)])


def test_reading_goes_on_where_it_has_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_PAUSES_S", (0.0, 0.0))
    bucket = FakeBucket("p/a")
    bucket.content["p/a"] = bytes(range(100))
    bucket.after = 30
    with files_of(bucket).open("a", 5) as reader:
        assert reader.read(20) == bytes(range(5, 25))
        assert reader.read() == bytes(range(25, 100))
        assert reader.read() == b""
    assert bucket.opened == [(5, None), (35, "1"), (65, "1"), (95, "1")]


def test_reading_ends_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_PAUSES_S", (0.0, 0.0))
    bucket = FakeBucket("p/a")
    bucket.after = 0
    with pytest.raises(UnavailableError):
        files_of(bucket).read("a")
    assert len(bucket.opened) == 3
