"""`ae5 build`: the release archive, with its checksum and a list of what is in it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_server.ae5.contents import (
    PACKAGE,
    PROJECT,
    PROJECT_FILE,
    RECORD,
    list_contents,
    make_archive,
    read_archive,
    read_checkout,
)
from mlflow_server.ae5.customise import Customisation, customise
from mlflow_server.ae5.written import write_whole
from mlflow_server.errors import BadInputError, PermissionDeniedError, UnavailableError

_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_RECORD_FORMAT = 1
_MODE = 0o644


@dataclass(frozen=True)
class Release:
    """An archive in memory.

    Args:
        version: Of the release.
        files: Contents by path.
        customisation: What a site has changed, in this archive and in those it was made from.
        content: The bytes.
    """

    version: str
    files: Mapping[str, bytes]
    customisation: Customisation
    content: bytes

    @property
    def name(self) -> str:
        """Of the archive's file."""
        return f"{PROJECT}.{self.version}.tar.gz"

    @property
    def sha256(self) -> str:
        """Of the bytes, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def make_release(source: Path, wanted: Customisation) -> Release:
    """Make a release from a checkout, or from an archive of an earlier build.

    Args:
        source: A folder, or an archive.
        wanted: What to change in it.

    Raises:
        UsageError: A value or a package cannot be put into it.
        OpsError: The source cannot be used.
    """
    files = read_checkout(source) if source.is_dir() else read_archive(source)
    before = _recorded(files)
    customisation = before.and_then(wanted)
    if wanted:
        text = customise(_text(files, PROJECT_FILE), wanted)
        files = {**files, PROJECT_FILE: text.encode()}
    version = _version_of(files)
    if customisation:
        files = {**files, RECORD: _record(version, customisation)}
    return Release(version, files, customisation, make_archive(files))


def read_release(path: Path) -> Release:
    """Read an archive as it is.

    Raises:
        OpsError: It is none of this project's.
    """
    files = read_archive(path)
    return Release(_version_of(files), files, _recorded(files), path.read_bytes())


def write_release(release: Release, folder: Path) -> Path:
    """Write an archive, its checksum and its contents into a folder.

    Args:
        release: What to write.
        folder: Is made when missing.

    Returns:
        The archive; it appears after the other two, each in one step.

    Raises:
        PermissionDeniedError: It may not be written there.
        UnavailableError: It cannot.
    """
    path = folder / release.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(Path(f"{path}.contents"), list_contents(release.files).encode(), _MODE)
        write_whole(Path(f"{path}.sha256"), f"{release.sha256}  {release.name}\n".encode(), _MODE)
        write_whole(path, release.content, _MODE)
    except OSError as err:
        kind = PermissionDeniedError if isinstance(err, PermissionError) else UnavailableError
        raise kind(f"{folder}: the archive cannot be written there: {err.strerror}") from None
    return path


def _record(version: str, customisation: Customisation) -> bytes:
    document = {
        "format": _RECORD_FORMAT,
        "version": version,
        "variables": dict(sorted(customisation.variables.items())),
        "packages": list(customisation.packages),
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _recorded(files: Mapping[str, bytes]) -> Customisation:
    if RECORD not in files:
        return Customisation()
    try:
        document: dict[str, Any] = json.loads(files[RECORD])
        return Customisation(dict(document["variables"]), tuple(document["packages"]))
    except (ValueError, KeyError, TypeError):
        raise BadInputError(f"{RECORD} in the archive is not understood") from None


def _version_of(files: Mapping[str, bytes]) -> str:
    found = _VERSION.search(_text(files, f"{PACKAGE}/__init__.py"))
    if found is None:
        raise BadInputError(f"{PACKAGE}/__init__.py: says no version")
    return found[1]


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except UnicodeDecodeError:
        raise BadInputError(f"{name}: is not UTF-8") from None
