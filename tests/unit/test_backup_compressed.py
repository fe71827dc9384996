"""A compressed file, with and without the thread."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from mlflow_server.backup.compressed import compressed


@pytest.mark.parametrize("sizes", [[], [0], [10, 20], [200_000, 5, 300_000, 100_000, 1]])
def test_what_is_written_is_there(tmp_path: Path, sizes: list[int]) -> None:
    contents = [os.urandom(size) for size in sizes]
    path = tmp_path / "new" / "file.gz"
    with compressed(path, 6) as lines:
        for content in contents:
            lines.write(content)
    written = path.read_bytes()
    assert gzip.decompress(written) == b"".join(contents)
    assert lines.sha256 == hashlib.sha256(written).hexdigest()


def test_the_same_is_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with compressed(tmp_path / name, 6) as lines:
            lines.write(b"x" * 100_000)
            lines.write(b"y")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_is_noticed() -> None:
    with pytest.raises(OSError, match="No space left"), compressed(Path("/dev/full"), 1) as lines:
        for _ in range(20):
            lines.write(os.urandom(200_000))


def test_an_error_on_the_way_is_the_one_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyError), compressed(tmp_path / "x", 1) as lines:
        lines.write(os.urandom(200_000))
        raise KeyError
