"""`ae5 upload`: a release as a project of the platform, whole or not at all."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mlflow_server.ae5.build import Release
from mlflow_server.ae5.deployments import COMMAND
from mlflow_server.ae5.names import require_name
from mlflow_server.ae5.program import Ae5
from mlflow_server.errors import NotFoundError, OpsError, UnavailableError

FOLDER_PREFIX = "mlflow-server-ae5-"
"""Of temporary folders."""
_UPLOAD_TIMEOUT_S = 600.0


class Doing(StrEnum):
    """What an upload does."""

    NOTHING = "nothing"
    UPLOAD = "upload"
    REPLACE = "replace"


@dataclass(frozen=True)
class Project:
    """A project on the platform.

    Args:
        id: `a0-…`.
        name: Of its owner's projects, one.
        owner: Who signed in.
        tag: Of its newest revision; ours says which archive that is.
        commands: What may be run of it, when that was asked for.
    """

    id: str
    name: str
    owner: str
    tag: str | None = None
    commands: tuple[str, ...] = ()

    def lacks(self, command: str) -> bool:
        """True when it is known that a command is not there."""
        return bool(self.commands) and command not in self.commands


@dataclass(frozen=True)
class UploadPlan:
    """What an upload would do.

    Args:
        doing: That.
        name: What the project is or will be called.
        project: The one that is there.
        taken: Why it is not the name that was asked for.
    """

    doing: Doing
    name: str
    project: Project | None = None
    taken: str | None = None


def tag_of(release: Release) -> str:
    """The name of a project's first revision: which archive it is."""
    return f"{release.version}-{release.sha256[:12]}"


def find_projects(ae5: Ae5, name: str) -> list[Project]:
    """The projects that a release may be: of a name, or of that name and something after it.

    The one of that very name is the first.
    """
    # A pattern finds nothing without an error; a name would be one.
    records = ae5.records("project", "list", f"{name}*")
    found = [_project(each) for each in records]
    return sorted(found, key=lambda project: (project.name != name, project.name))


def plan_upload(ae5: Ae5, release: Release, name: str, *, replaces: bool) -> UploadPlan:
    """Find out what has to be done to have a release as a project.

    Args:
        ae5: The program.
        release: What is to be there.
        name: What it is to be called.
        replaces: A project of that name goes, when nothing is deployed from it.

    Raises:
        UsageError: The name cannot be.
        OpsError: Something is deployed from the project that is to go.
    """
    require_name(name, "project")
    there = find_projects(ae5, name)
    names = (name, f"{name}-{release.version}", f"{name}-{tag_of(release)}")
    by_name = {project.name: project for project in there if project.name in names}
    for project in by_name.values():
        if _tag(ae5, project) == tag_of(release):
            return UploadPlan(Doing.NOTHING, project.name, project)
    if name not in by_name:
        return UploadPlan(Doing.UPLOAD, name)
    if replaces:
        _require_idle(ae5, by_name[name])
        return UploadPlan(Doing.REPLACE, name, by_name[name])
    free = next(each for each in names if each not in by_name)
    return UploadPlan(Doing.UPLOAD, free, taken=f"{name} is another release")


def upload(ae5: Ae5, release: Release, plan: UploadPlan) -> Project:
    """Do what is planned.

    Raises:
        OpsError: It failed; no half of a project is left, unless the message says so.
    """
    if plan.doing is Doing.NOTHING and plan.project is not None:
        return plan.project
    if plan.project is not None:
        remove(ae5, plan.project)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        path = Path(folder) / release.name
        path.write_bytes(release.content)
        return send(ae5, path, plan.name, tag_of(release))


def send(ae5: Ae5, path: Path, name: str, tag: str, command: str | None = COMMAND) -> Project:
    """Upload an archive as a new project.

    Args:
        ae5: The program.
        path: Of the archive.
        name: Of the project; free.
        tag: Of its one revision.
        command: That it has to have; None for any.

    Raises:
        OpsError: It failed; no half of a project is left, unless the message says so.
    """
    try:
        record = ae5.record(
            *("project", "upload", str(path), "--name", name, "--tag", tag),
            timeout_s=_UPLOAD_TIMEOUT_S,
        )
    except BaseException as err:
        project = _whole(ae5, name, tag, command)
        # When the answer alone was lost, the project is as it should be.
        if project is None or not isinstance(err, OpsError):
            raise
        return project
    project = _complete(ae5, replace(_project(record), tag=tag))
    if not _is_whole(project, command):
        raise OpsError(
            f"project {project.name}: was uploaded, and has no command {command or 'at all'}",
            hint=f"look at it: ae5 project revision commands {project.id}",
        )
    return project


def download(ae5: Ae5, project: Project, path: Path) -> None:
    """Have the archive of a project's newest revision.

    Args:
        ae5: The program.
        project: Which.
        path: Where it is written.

    Raises:
        OpsError: It cannot be had.
    """
    # With the id alone ae5 takes the newest revision.
    told = ("project", "download", project.id, "--filename", str(path))
    ae5.text(*told, timeout_s=_UPLOAD_TIMEOUT_S)
    if not path.is_file() or not path.stat().st_size:
        raise UnavailableError(f"project {project.name}: the platform gave no archive of it")


def rename(ae5: Ae5, project: Project, name: str) -> Project:
    """Give a project another name, which is free.

    Raises:
        OpsError: The platform refused it.
    """
    ae5.text("project", "patch", project.id, "--name", name)
    return replace(project, name=name)


def remove(ae5: Ae5, project: Project) -> None:
    """Delete a project that nothing runs of; its endpoint is free then.

    Raises:
        OpsError: Something runs of it.
    """
    try:
        ae5.text("project", "delete", project.id, "--yes")
    except NotFoundError:
        return  # somebody was faster


def with_tag(ae5: Ae5, project: Project) -> Project:
    """The same, with the name of its newest revision; none when it has no revision yet."""
    return replace(project, tag=_tag(ae5, project))


def _whole(ae5: Ae5, name: str, tag: str, command: str | None) -> Project | None:
    """What a broken upload has made, if that is all of it; else it goes: nobody has used it."""
    for project in find_projects(ae5, name):
        if project.name == name:
            if _tag(ae5, project) == tag:
                complete = _complete(ae5, replace(project, tag=tag))
                if _is_whole(complete, command):
                    return complete
            remove(ae5, project)
    return None


def _complete(ae5: Ae5, project: Project) -> Project:
    records = ae5.records("project", "revision", "commands", project.id)
    return replace(project, commands=tuple(str(each.get("id")) for each in records))


def _is_whole(project: Project, command: str | None) -> bool:
    return bool(project.commands) if command is None else command in project.commands


def _require_idle(ae5: Ae5, project: Project) -> None:
    deployed = [each for each in ae5.records("deployment", "list") if _is_of(each, project)]
    jobs = [each for each in ae5.records("job", "list") if _is_of(each, project)]
    in_use = [*_named("deployment", deployed), *_named("job", jobs)]
    if in_use:
        raise OpsError(
            f"project {project.name}: is in use: {', '.join(in_use)}",
            hint="leave --replace away: the release gets a name with its version",
        )


def _is_of(record: dict[str, Any], project: Project) -> bool:
    return str(record.get("project_id")) == project.id


def _named(what: str, records: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{what} {each.get('name')}" for each in records]


def _project(record: dict[str, Any]) -> Project:
    return Project(str(record["id"]), str(record["name"]), str(record.get("owner", "")))


def _tag(ae5: Ae5, project: Project) -> str | None:
    try:
        revisions = ae5.records("project", "revision", "list", project.id)
    except NotFoundError:
        return None  # it has none yet, or has just gone
    return str(revisions[0].get("name")) if revisions else None
