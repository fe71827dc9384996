"""Contents in pieces: none is lost, and each has its size."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.artifacts.content import chunks_of, parts_of
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import ChangedError

CHUNKS = st.lists(st.binary(max_size=40), max_size=12)


@given(chunks=CHUNKS, part_bytes=st.integers(1, 50))
def test_parts_have_one_size_but_for_the_last(chunks: list[bytes], part_bytes: int) -> None:
    parts = list(parts_of(chunks, part_bytes))
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == part_bytes for part in parts[:-1])
    assert all(0 < len(part) <= part_bytes for part in parts[-1:])


@given(chunks=CHUNKS)
def test_a_content_comes_from_anything(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    for source in (whole, io.BytesIO(whole), chunks, iter(chunks)):
        found = list(chunks_of(source, len(whole), "SUBJECT"))
        assert b"".join(found) == whole
        assert b"" not in found


@pytest.mark.parametrize("size_bytes", [0, 4, 6])
def test_a_content_of_another_size_is_refused(size_bytes: int) -> None:
    with pytest.raises(ChangedError, match="SUBJECT"):
        list(chunks_of(io.BytesIO(b"12345"), size_bytes, "SUBJECT"))


def test_paths_in_messages_can_be_written_anywhere() -> None:
    assert shown("caf\udce9") == "caf\ufffd"
    assert len(shown("n" * 5_000)) == 201
    assert shown("größe") == "größe"
