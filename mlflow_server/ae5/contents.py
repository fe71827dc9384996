"""What a release archive holds, and how its bytes are made: the same ones from the same files."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from mlflow_server.errors import BadInputError, UnavailableError

PROJECT = "mlflow.tracking.server"
"""The project's name, the archive's one folder, and how its name begins."""
PROJECT_FILE = "anaconda-project.yml"
PACKAGE = "mlflow_server"
RECORD = "release.json"
"""What was customised in an archive; see `build`."""

_BESIDE = ("README.md", "CHANGELOG.md", "LICENSE")
# Any file may be in the package but what tools leave there.
_LEFTOVERS = ("__pycache__", ".pyc", ".pyo", "~", ".swp", ".orig", ".rej")
# Far more than a release has; what is larger is none.
_LARGEST_BYTES = 64 * 1024 * 1024
# The platform unpacks with the times of the archive, and zip tools know none before.
_TIME_S = 315_532_800


def read_checkout(folder: Path) -> dict[str, bytes]:
    """The files of a release from a checkout of this project.

    Args:
        folder: That has `anaconda-project.yml`.

    Returns:
        Contents by path, below the folder.

    Raises:
        UnavailableError: It is no checkout.
        BadInputError: There is a link in it.
    """
    if not (folder / PROJECT_FILE).is_file() or not (folder / PACKAGE / "__init__.py").is_file():
        raise UnavailableError(
            f"{folder}: has no {PROJECT_FILE} with {PACKAGE}/ beside it",
            hint="run it in a checkout of this project, or: --from ARCHIVE",
        )
    paths = [folder / PROJECT_FILE, *(folder / name for name in _BESIDE)]
    paths += sorted((folder / PACKAGE).rglob("*"))
    found: dict[str, bytes] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") or part.endswith(_LEFTOVERS) for part in name.split("/")):
            continue
        if path.is_symlink():
            raise BadInputError(f"{path}: is a link; the platform leaves links out", hint="copy it")
        if path.is_file():
            found[name] = path.read_bytes()
    return found


def read_archive(path: Path) -> dict[str, bytes]:
    """The files of a release archive.

    Args:
        path: Of the archive.

    Returns:
        Contents by path, below its one folder.

    Raises:
        UnavailableError: It is not there.
        BadInputError: It is damaged, or no release of this project.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise UnavailableError(f"{path}: cannot be read: {err.strerror}") from None
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            found = dict(_members(path, tar))
    except (tarfile.TarError, EOFError, OSError, ValueError):
        raise BadInputError(
            f"{path}: is damaged, or no archive (.tar.gz)", hint="mlflow-server ae5 build"
        ) from None
    if PROJECT_FILE not in found or f"{PACKAGE}/__init__.py" not in found:
        raise BadInputError(f"{path}: is no release of {PROJECT}: it has no {PROJECT_FILE}")
    return found


def _members(path: Path, tar: tarfile.TarFile) -> list[tuple[str, bytes]]:
    found, folders = list[tuple[str, bytes]](), set[str]()
    for member in tar:
        top, _, name = member.name.partition("/")
        folders.add(top)
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isreg() else None
        if file is None or not name or ".." in name.split("/") or len(folders) > 1:
            raise BadInputError(
                f"{path}: {member.name!r} is no file below the archive's one folder",
                hint="build it again: mlflow-server ae5 build",
            )
        if member.size > _LARGEST_BYTES:
            raise BadInputError(f"{path}: {member.name!r} is too large for a release")
        found.append((name, file.read()))
    return found


def make_archive(files: Mapping[str, bytes], top: str = PROJECT) -> bytes:
    """The bytes of an archive: the same for the same files, wherever and whenever it is made.

    Args:
        files: Contents by path.
        top: The folder that everything is below.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(files[name]), _TIME_S, 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def list_contents(files: Mapping[str, bytes]) -> str:
    """What is in an archive: SHA-256, bytes and path of each file, a line each."""
    lines = (
        f"{hashlib.sha256(content).hexdigest()}  {len(content):>8}  {name}"
        for name, content in sorted(files.items())
    )
    return "".join(f"{line}\n" for line in lines)
