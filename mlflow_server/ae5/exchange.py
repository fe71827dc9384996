"""A project in the place of another one.

The platform has no upload of a new revision, and an endpoint stays its project's as long as that is
there (help of `ae5 deployment start`; the documentation of ae5-tools deletes the old project). So a
release is uploaded beside the one that runs, and takes its name when that one has gone; of which a
copy is kept before, to go back to.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.ae5.deployments import COMMAND
from mlflow_server.ae5.program import Ae5
from mlflow_server.ae5.projects import (
    FOLDER_PREFIX,
    Project,
    download,
    find_projects,
    remove,
    send,
    with_tag,
)

NEXT, BEFORE = "-next", "-before"
"""What the names of the two projects beside the one that runs end with."""

_ARCHIVE = "release.tar.gz"
_TAG = re.compile(r"\d+\.\d+\.\d+\S*-[0-9a-f]{12}")


@dataclass(frozen=True)
class Candidate:
    """A release that is to run.

    Args:
        tag: Which archive it is; see `projects.tag_of`.
        write: Puts the archive into a file.
    """

    tag: str
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Places:
    """The projects of a site.

    Args:
        name: Of the one that runs.
        live: That one.
        next: Uploaded, and about to take its place.
        before: A copy of the one that ran before.
    """

    name: str
    live: Project | None
    next: Project | None
    before: Project | None

    def has(self, tag: str) -> Project | None:
        """The project of a release that runs or is about to."""
        return next(
            (each for each in (self.live, self.next) if each is not None and each.tag == tag), None
        )


def is_release(tag: str | None) -> bool:
    """True for the tag of what commands of this room have uploaded."""
    return _TAG.fullmatch(tag or "") is not None


def find_places(ae5: Ae5, name: str, tag: str | None) -> Places:
    """Look what is there.

    Args:
        ae5: The program.
        name: Of the project that runs.
        tag: Of the release that is wanted: when it runs, the others are not looked at closely.
    """
    there = {each.name: each for each in find_projects(ae5, name)}

    def tagged(wanted: str) -> Project | None:
        return with_tag(ae5, there[wanted]) if wanted in there else None

    live = tagged(name)
    if live is not None and live.tag == tag:
        return Places(name, live, there.get(f"{name}{NEXT}"), there.get(f"{name}{BEFORE}"))
    return Places(name, live, tagged(f"{name}{NEXT}"), tagged(f"{name}{BEFORE}"))


def name_for(places: Places) -> str:
    """What a release that is uploaded now is called."""
    return places.name if places.live is None else f"{places.name}{NEXT}"


def bring(ae5: Ae5, places: Places, candidate: Candidate) -> Project:
    """Upload a release, beside the one that runs if there is one.

    Raises:
        OpsError: It failed; nothing that runs was touched.
    """
    if places.live is not None and places.next is not None:
        remove(ae5, places.next)
    return _send(ae5, candidate, name_for(places), COMMAND)


def keep(ae5: Ae5, places: Places, project: Project) -> Project:
    """Keep a copy of a project that is about to go.

    Raises:
        OpsError: It failed; the project is there still.
    """
    if places.before is not None and places.before.tag == project.tag:
        return places.before
    if places.before is not None:
        remove(ae5, places.before)
    copy = Candidate(project.tag or "", lambda path: download(ae5, project, path))
    # Whatever it was: it is not for us to judge.
    return _send(ae5, copy, f"{places.name}{BEFORE}", None)


def _send(ae5: Ae5, candidate: Candidate, name: str, command: str | None) -> Project:
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        path = Path(folder) / _ARCHIVE
        candidate.write(path)
        return send(ae5, path, name, candidate.tag, command)
