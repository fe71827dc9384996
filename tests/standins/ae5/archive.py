"""Uploaded archives: what the platform takes, and what it reads in them.

Source: anaconda-project 0.13 (archiver.py, project.py): everything below one top folder; nothing
absolute, no `..`. Links are refused here, while anaconda-project skips them silently.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tests.standins.ae5.state import Command

PROJECT_FILE = "anaconda-project.yml"
_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar", ".zip", ".tgz")
_KINDS = ("unix", "notebook", "bokeh_app", "conda_app_entry")
_RESERVED = frozenset({"CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_ENV_PATH"})


class BadArchiveError(Exception):
    """The platform does not take this archive."""


def read_archive(name: str, content: bytes) -> dict[PurePosixPath, tuple[bytes, int]]:
    """The files of an archive: content and mode by path below the one top folder.

    Args:
        name: Of the file; its ending says what kind it is.
        content: All of it.

    Raises:
        BadArchiveError: It cannot be read, or holds what the platform refuses.
    """
    if not name.endswith(_SUFFIXES):
        raise BadArchiveError(f"{name}: unknown kind of archive")
    try:
        entries = list(_zip(content) if name.endswith(".zip") else _tar(content))
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as err:
        raise BadArchiveError(f"the archive cannot be read: {err}") from err
    tops = {PurePosixPath(path).parts[0] for path, _, _ in entries if PurePosixPath(path).parts}
    if len(tops) != 1:
        raise BadArchiveError(f"there must be one top folder, not {len(tops)}")
    files: dict[PurePosixPath, tuple[bytes, int]] = {}
    for entry, data, mode in entries:
        path = PurePosixPath(entry)
        if path.is_absolute() or ".." in path.parts:
            raise BadArchiveError(f"{entry} leads out of the archive")
        if data is not None:
            below = PurePosixPath(*path.parts[1:])
            if not below.parts:
                raise BadArchiveError(f"{entry} is not below a top folder")
            if below in files:
                raise BadArchiveError(f"{entry} is there twice")
            files[below] = data, mode
    return files


def _tar(content: bytes) -> Iterator[tuple[str, bytes | None, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise BadArchiveError(f"{member.name} is neither file nor folder")
            file = archive.extractfile(member)
            yield member.name, file.read() if file else None, member.mode


def _zip(content: bytes) -> Iterator[tuple[str, bytes | None, int]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            if mode & 0o170000 == 0o120000:
                raise BadArchiveError(f"{member.filename} is neither file nor folder")
            data = None if member.is_dir() else archive.read(member)
            yield member.filename, data, mode & 0o777 or 0o644


def unpack(name: str, content: bytes, folder: Path) -> None:
    """Write the files of an archive into a new folder."""
    folder.mkdir(parents=True)
    for path, (data, mode) in read_archive(name, content).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode & 0o777)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys; for the platform they are a problem."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "a key twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_project(name: str, content: bytes) -> tuple[tuple[Command, ...], dict[str, str | None]]:
    """The commands and the variables of an archive's `anaconda-project.yml`.

    Raises:
        BadArchiveError: There is none, or anaconda-project would have a problem with it.
    """
    files = read_archive(name, content)
    try:
        text = files[PurePosixPath(PROJECT_FILE)][0].decode()
        project = yaml.load(text, _UniqueKeys)  # noqa: S506 - it is a SafeLoader
    except KeyError as err:
        raise BadArchiveError(f"{PROJECT_FILE} is missing") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise BadArchiveError(f"{PROJECT_FILE} cannot be read: {err}") from err
    if not isinstance(project, dict) or not isinstance(project.get("name"), str):
        raise BadArchiveError(f"{PROJECT_FILE}: name is missing")
    specs = project.get("env_specs") or {"default": None}
    commands = tuple(
        _command(key, value, specs) for key, value in (project.get("commands") or {}).items()
    )
    first = [each for each in commands if each.name == "default"]
    ordered = (*first, *(each for each in commands if each not in first))
    return ordered, _variables(project.get("variables"))


def _command(name: str, told: object, specs: Mapping[str, object]) -> Command:
    if not isinstance(told, dict) or len([kind for kind in _KINDS if kind in told]) != 1:
        raise BadArchiveError(f"command {name}: exactly one of {', '.join(_KINDS)} is needed")
    line, http = told.get("unix", ""), told.get("supports_http_options")
    if not isinstance(line, str) or http not in (None, True, False):
        raise BadArchiveError(f"command {name}: unix is text, supports_http_options a boolean")
    spec = told.get("env_spec") or ("default" if "default" in specs else next(iter(specs)))
    if spec not in specs:
        raise BadArchiveError(f"command {name}: there is no env_spec {spec}")
    return Command(name, line, http, spec, _variables(told.get("variables")))


def _variables(told: object) -> dict[str, str | None]:
    """Defaults by name; None is a variable that is required, and so is an empty one."""
    if told is None:
        return {}
    if isinstance(told, list):
        told = dict.fromkeys(told)
    if not isinstance(told, dict):
        raise BadArchiveError("variables is neither a list nor a map")
    found: dict[str, str | None] = {}
    for name, value in told.items():
        default = value.get("default") if isinstance(value, dict) else value
        if name in _RESERVED:
            raise BadArchiveError(f"variable {name} is reserved")
        if isinstance(default, bool) or not isinstance(default, str | int | float | None):
            raise BadArchiveError(
                f"default value for variable {name} must be null, a string, or a number,"
                f" not {default}"
            )
        found[name] = None if default in (None, "") else str(default)
    return found
