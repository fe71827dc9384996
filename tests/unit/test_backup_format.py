"""The documents of an archive, and what is read of them."""

from __future__ import annotations

import gzip
import io
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.artifacts.files import LocalFiles
from mlflow_server.backup.format import read_manifest
from mlflow_server.backup.names import (
    is_id,
    is_inside,
    is_label,
    make_id,
    read_sums,
    render_sums,
    sha256,
)
from mlflow_server.backup.packs import PackWriter
from mlflow_server.backup.reading import read_lines
from mlflow_server.errors import BadInputError

LINES = st.lists(st.binary(max_size=30).map(lambda b: b"[" + b.translate(None, b"\r\n") + b"\n"))
NAMES = st.text(string.ascii_letters + string.digits + "/._-%", min_size=1)


@pytest.mark.parametrize("path", ["a", "a/b", "a//b", "...", "a/..b", "ä/\n", " "])
def test_paths_below(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize("path", ["", "/a", "a/", "..", "a/..", "../a", "a/./b", ".", "a\0", "/"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    assert not is_inside(path)


@pytest.mark.parametrize("label", ["a", "before-upgrade", "3.17", "a" * 64])
def test_names(label: str) -> None:
    moment = datetime(2026, 11, 21, 13, 41, 15, tzinfo=UTC)
    assert is_label(label)
    assert is_id(make_id(moment, label))
    assert make_id(moment, None) == "20261121T134115Z"


@pytest.mark.parametrize("label", ["", "-a", ".", "a/b", "a b", "a\n", "ä", "a" * 65])
def test_labels_that_cannot_be(label: str) -> None:
    assert not is_label(label)


@given(st.dictionaries(NAMES, st.just("0" * 64) | st.just("f" * 64), min_size=1))
def test_sums_are_read_as_they_were_written(sums: dict[str, str]) -> None:
    assert read_sums(render_sums(sums), "here") == sums


@given(st.binary(max_size=200))
def test_sums_that_are_none(content: bytes) -> None:
    with pytest.raises(BadInputError):
        read_sums(content, "here")


@given(st.binary(max_size=200) | st.recursive(st.none(), st.lists).map(lambda x: str(x).encode()))
def test_manifests_that_are_none(content: bytes) -> None:
    with pytest.raises(BadInputError):
        read_manifest(content, "here")


@given(LINES)
def test_lines_are_read_as_they_were_written(lines: list[bytes]) -> None:
    content = gzip.compress(b"".join(lines))
    found = read_lines(io.BytesIO(content), sha256(content), "here")
    assert list(chain.from_iterable(found)) == lines


@given(LINES, st.data())
def test_a_changed_byte_is_no_line(lines: list[bytes], data: st.DataObject) -> None:
    content = bytearray(gzip.compress(b"".join(lines), mtime=0))
    digest = sha256(bytes(content))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadInputError):
        list(read_lines(io.BytesIO(bytes(content)), digest, "here"))


@pytest.mark.parametrize("text", [b"[1]", b"\0\0", b"[1]\n[2]"])
def test_lines_that_are_none(text: bytes) -> None:
    content = gzip.compress(text)
    with pytest.raises(BadInputError):
        list(read_lines(io.BytesIO(content), sha256(content), "here"))


# What is large enough for a thread of its own among what is not.
SIZES = st.one_of(st.integers(0, 3_000), st.sampled_from([65_000, 65_536, 300_000]))


@given(sizes=st.lists(SIZES, max_size=30))
def test_packs_are_tar_files(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    import tarfile

    folder = tmp_path_factory.mktemp("packs")
    (folder / "there").mkdir()
    contents = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    writer = PackWriter(
        "20261121T134115Z",
        folder,
        lambda path, name: path.rename(folder / "there" / name.rpartition("/")[2]) and None,
        pack_bytes=5_000,
    )
    places = [writer.add((content,), len(content)) for content in contents]
    entries = {entry.file: entry for entry in writer.close()}
    for (pack, offset), content in zip(places, contents, strict=True):
        whole = (folder / "there" / pack.rpartition("/")[2]).read_bytes()
        assert whole[offset : offset + len(content)] == content
        assert (len(whole), sha256(whole)) == (entries[pack].size_bytes, entries[pack].sha256)
    members = []
    for entry in entries.values():
        with tarfile.open(folder / "there" / entry.file.rpartition("/")[2]) as tar:
            members += [tar.extractfile(member).read() for member in tar]  # type: ignore[union-attr]
    assert members == contents


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_pack_that_cannot_be_kept_is_told(tmp_path: Path, count: int) -> None:
    def keep(_path: Path, _name: str) -> None:
        raise OSError(28, "No space left on device")

    writer = PackWriter("20261121T134115Z", tmp_path, keep, pack_bytes=100_000)
    writer.add((b"x" * 90_000,), 90_000)
    with pytest.raises(OSError, match="No space"):
        for _ in range(count):
            writer.add((b"x" * 90_000,), 90_000)
        writer.close()


def test_a_large_content_that_fails_is_not_in_a_pack(tmp_path: Path) -> None:
    writer = PackWriter("20261121T134115Z", tmp_path, lambda path, name: None)

    def failing() -> Iterator[bytes]:
        yield b"x" * 200_000
        yield b"y" * 200_000
        raise KeyError

    writer.add((b"1" * 100_000,), 100_000)
    with pytest.raises(KeyError):
        writer.add(failing(), 600_000)
    _, offset = writer.add((b"2" * 100_000,), 100_000)
    (entry,) = writer.close()
    whole = (tmp_path / "00001.tar").read_bytes()
    assert (sha256(whole), len(whole)) == (entry.sha256, entry.size_bytes)
    assert whole[offset : offset + 100_000] == b"2" * 100_000
    assert b"xx" not in whole


@pytest.mark.parametrize("chunks", [(b"short",), (b"too ", b"long for it")])
def test_a_content_of_another_length_is_not_in_a_pack(
    tmp_path_factory: pytest.TempPathFactory, chunks: tuple[bytes, ...]
) -> None:
    folder = tmp_path_factory.mktemp("packs")
    writer = PackWriter("20261121T134115Z", folder, lambda path, name: None)
    before = writer.add((b"one",), 3)
    with pytest.raises(ValueError, match="another length"):
        writer.add(chunks, 8)
    after = writer.add((b"two",), 3)
    (entry,) = writer.close()
    whole = (folder / "00001.tar").read_bytes()
    assert sha256(whole) == entry.sha256
    for (_, offset), content in ((before, b"one"), (after, b"two")):
        assert whole[offset : offset + 3] == content


def test_leftovers_of_killed_writers_are_removed(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("files")
    files = LocalFiles(root / "not-there", "here")
    files.remove_leftovers()
    files = LocalFiles(root, "here")
    files.write("a/b/kept", b"")
    for folder in ("", "a", "a/b"):
        (root / folder / ".mlflow-server-part-1234").write_bytes(b"")
    files.remove_leftovers()
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["kept"]
