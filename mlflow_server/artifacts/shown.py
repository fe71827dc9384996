"""Paths and keys in messages. Pure."""

import os

_LENGTH = 200


def shown(path: str | os.PathLike[str]) -> str:
    """A path for messages: short enough, and nothing in it that cannot be written anywhere."""
    text = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
