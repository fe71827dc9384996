"""What the parts of an archive are called: `docs/design/backup.md`. Pure."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from mlflow_server.errors import BadInputError

FORMAT = 1
MANIFEST = "manifest.json"
INDEX = "artifacts.jsonl.gz"
SUMS = "SHA256SUMS"
PACKS = ".packs"
UNFINISHED = ".unfinished-"

_LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
ID = rf"[0-9]{{8}}T[0-9]{{6}}Z(-{_LABEL})?"
"""Of a backup, as a regular expression."""

_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


class Scope(StrEnum):
    """What a backup stored anew."""

    FULL = "full"
    INCREMENTAL = "incremental"


class DatabaseName(StrEnum):
    """What a database of a server is."""

    BACKEND = "backend"
    REGISTRY = "registry"
    AUTH = "auth"


def make_id(moment: datetime, label: str | None) -> str:
    """The name of a backup that begins now.

    Args:
        moment: Now, in UTC.
        label: What its maker calls it.
    """
    return f"{moment:%Y%m%dT%H%M%SZ}" + (f"-{label}" if label else "")


def is_id(name: str) -> bool:
    """True for what a backup can be called."""
    return re.fullmatch(ID, name) is not None


def is_label(text: str) -> bool:
    """True for what may follow the time in the name of a backup."""
    return re.fullmatch(_LABEL, text) is not None


def render_sums(sums: Mapping[str, str]) -> bytes:
    """`SHA256SUMS` of files, as `sha256sum` writes it.

    Args:
        sums: Hexadecimal digests by relative path.
    """
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()


def read_sums(content: bytes, shown: str) -> dict[str, str]:
    """Understand `SHA256SUMS`.

    Args:
        content: Of the file.
        shown: Which file, for messages.

    Raises:
        BadInputError: A line is not as `render_sums` writes them.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    sums = {path: digest for digest, path in _SUM_LINE.findall(text)}
    if not sums or render_sums(sums) != content:
        raise BadInputError(f"{shown}: is damaged")
    return sums


def is_inside(path: str) -> bool:
    """True for a relative path that leads to something below where it starts.

    A part in the middle may be empty: buckets have such keys.
    """
    parts = path.split("/")
    is_relative = bool(parts[0] and parts[-1])
    return is_relative and {".", ".."}.isdisjoint(parts) and "\0" not in path


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()
