"""A project folder as an archive: everything below `project/`, but for what is ignored."""

from __future__ import annotations

import fnmatch
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path


def _ignored_by_git(folder: Path) -> list[str]:
    if not (folder / ".git").exists():
        return []
    listing = subprocess.check_output(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory"],
        cwd=folder,
        text=True,
    )
    return [f"/{line}" for line in listing.splitlines()]


def _patterns(folder: Path) -> list[str]:
    file = folder / ".projectignore"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    told = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return ["/.git/", *_ignored_by_git(folder), *told]


def _is_ignored(path: str, patterns: list[str]) -> bool:
    parts = path.split("/")
    heads = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    for pattern in patterns:
        plain = pattern.strip("/")
        among = heads if pattern.startswith("/") else [*heads, *parts]
        if any(fnmatch.fnmatchcase(each, plain) for each in among):
            return True
    return False


def _files(folder: Path) -> Iterator[Path]:
    patterns = _patterns(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_ignored(path.relative_to(folder).as_posix(), patterns):
            yield path


def pack(folder: Path) -> io.BytesIO:
    """The folder as a tar.gz in memory."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path in _files(folder):
            archive.add(path, f"project/{path.relative_to(folder).as_posix()}")
    content.seek(0)
    return content
