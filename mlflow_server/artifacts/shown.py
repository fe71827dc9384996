"""Paths and keys in messages. Pure."""

import re

_LENGTH = 200
# Of names on disks that are no UTF-8; nothing can be written with them.
_SURROGATES = re.compile("[\ud800-\udfff]")


def shown(path: str) -> str:
    """A path for messages: short enough, and nothing in it that cannot be written anywhere."""
    text = _SURROGATES.sub("\ufffd", path)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
