"""Projects: upload, revisions, activity, download, delete; and what is fixed: profiles, editors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.standins.ae5.archive import BadArchiveError, read_project
from tests.standins.ae5.state import Command, Project, Revision, new_hex, now
from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

PROFILES = {
    "default": "Default (cpu: 1000m, memory: 4096MB)",
    "medium": "Two cores (cpu: 2000m, memory: 8192MB)",
    "large": "Large, with a graphics card (cpu: 8000m, memory: 65536MB, gpu: 1)",
}
_EDITORS = ("jupyterlab", "notebook", "zeppelin")
_FIRST_TAG = "0.0.1"
_PART = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def project_record(project: Project) -> dict[str, Any]:
    """As the API tells of it."""
    return {
        "id": project.id,
        "name": project.name,
        "owner": project.owner,
        "editor": project.editor,
        "resource_profile": project.resource_profile,
        "created": project.created,
        "updated": project.updated,
        "project_create_status": "done",
        "repository": f"{project.owner}-{project.hex}",
        "git_server": None,
        "url": project.url,
    }


def _command_record(command: Command, is_first: bool) -> dict[str, Any]:
    return {
        "id": command.name,
        "unix": command.unix,
        "windows": None,
        "supports_http_options": bool(command.http_options),
        "env_spec": command.env_spec,
        "default": is_first,
    }


def revision_record(project: Project, revision: Revision) -> dict[str, Any]:
    """As the API tells of it."""
    return {
        "id": revision.name,
        "name": revision.name,
        "owner": project.owner,
        "created": revision.created,
        "updated": revision.created,
        "commands": [
            _command_record(each, number == 0) for number, each in enumerate(revision.commands)
        ],
        "url": f"{project.url}/revisions/{revision.name}",
    }


def list_projects(cluster: Cluster, call: Call, user: str) -> Answer:
    """All that the caller may see, bare."""
    return Answer.of([project_record(each) for each in cluster.visible_projects(user)])


def _read_form(call: Call) -> dict[str, tuple[str, bytes]]:
    """The fields of a multipart form: file name (or nothing) and content by field."""
    kind = call.headers.get("content-type", "")
    boundary = dict(_PART.findall(kind)).get("boundary") or kind.partition("boundary=")[2]
    if not kind.startswith("multipart/form-data") or not boundary:
        raise Refusal(400, "a multipart form is needed", complaint=True)
    start, *parts = (b"\r\n" + call.body).split(f"\r\n--{boundary}".encode())
    if start or not parts or not parts[-1].startswith(b"--"):
        raise Refusal(400, "the form is not complete", complaint=True)
    fields: dict[str, tuple[str, bytes]] = {}
    for part in parts[:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        told = dict(_PART.findall(head.decode("utf-8", "replace")))
        if told.get("name", "") in fields or "name" not in told:
            raise Refusal(400, "a field twice, or without a name", complaint=True)
        fields[told["name"]] = told.get("filename", ""), content
    return fields


def upload(cluster: Cluster, call: Call, user: str) -> Answer:
    """A new project; a taken name and a bad archive are refused in the action, with status 201."""
    fields = _read_form(call)
    names = set(fields)
    if not {"project_file", "name"} <= names <= {"project_file", "name", "tag"}:
        raise Refusal(422, f"unknown or missing fields: {sorted(names)}", complaint=True)
    filename, content = fields["project_file"]
    if not filename:
        raise Refusal(422, "project_file is no file", complaint=True)
    name = fields["name"][1].decode()
    tag = fields["tag"][1].decode() if "tag" in fields else _FIRST_TAG
    if not name or not tag:
        raise Refusal(422, "name or tag is empty", complaint=True)
    return _create(cluster, user, name, tag, filename, content)


def _create(
    cluster: Cluster, user: str, name: str, tag: str, filename: str, content: bytes
) -> Answer:
    project = Project(new_hex(), name, user, "default", now(), now())
    action = _activity(project, "create_action", "Uploading project")
    problem = ""
    with cluster.lock:
        if any(each.name == name and each.owner == user for each in cluster.projects):
            problem = f"Project {name} already exists"
        else:
            try:
                _add_revision(cluster, project, tag, filename, content)
            except BadArchiveError as err:
                problem = f"Project archive is invalid: {err}"
            else:
                cluster.projects.append(project)
        if problem:
            action.update(done=True, error=True, status="error", message=problem)
        elif not cluster.upload_polls:
            _finish(action)
        else:
            cluster.pending_uploads[action["id"]] = cluster.upload_polls
    return Answer.of({**project_record(project), "action": action}, 201)


def _finish(action: dict[str, Any]) -> None:
    action.update(done=True, status="success", message="Project uploaded", updated=now())


def _add_revision(
    cluster: Cluster, project: Project, tag: str, filename: str, content: bytes
) -> None:
    """Read an archive and keep it."""
    ending = ".zip" if filename.endswith(".zip") else ".tar.gz"
    commands, variables = read_project(filename, content)
    archive = cluster.folder / "archives" / f"{project.hex}-{len(project.revisions)}{ending}"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(content)
    project.revisions.append(Revision(tag, now(), archive, commands, variables))
    project.updated = now()


def commit(cluster: Cluster, project: Project, tag: str, filename: str, content: bytes) -> None:
    """A new revision, as somebody commits it in a session; the API has no way to do this."""
    with cluster.lock:
        _add_revision(cluster, project, tag, filename, content)


def _activity(project: Project, kind: str, message: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": new_hex(),
        "type": kind,
        "status": "created",
        "message": message,
        "done": False,
        "error": False,
        "owner": project.owner,
        "created": now(),
        "updated": now(),
    }
    project.activity.append(entry)
    return entry


def list_activity(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """The newest entries, in `data`."""
    found = cluster.project(user, project)
    if call.asked("sort") != "-updated":
        raise Refusal(400, "sort=-updated is needed", complaint=True)
    try:
        size = int(call.asked("page[size]"))
    except ValueError as err:
        raise Refusal(400, "page[size] is no number", complaint=True) from err
    with cluster.lock:
        for action in found.activity:
            left = cluster.pending_uploads.get(action["id"])
            if left == 1:
                _finish(action)
                del cluster.pending_uploads[action["id"]]
            elif left:
                cluster.pending_uploads[action["id"]] = left - 1
        return Answer.of({"data": [dict(each) for each in found.activity[::-1][:size]]})


def list_revisions(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """The newest first."""
    found = cluster.project(user, project)
    return Answer.of([revision_record(found, each) for each in found.revisions[::-1]])


def download(cluster: Cluster, call: Call, user: str, project: str, revision: str) -> Answer:
    """The archive as it was uploaded."""
    found = cluster.project(user, project).revision(revision)
    if found is None:
        raise Refusal(404, "there is no such revision")
    return Answer(200, found.archive.read_bytes(), (("Content-Type", "application/gzip"),))


def patch(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Another name, editor or profile."""
    found = cluster.own_project(user, project)
    told = cluster.read_json(
        call, {}, optional={"name": str, "editor": str, "resource_profile": str}
    )
    if "name" in told:
        if any(each.name == told["name"] and each.owner == user for each in cluster.projects):
            raise Refusal(409, f"Project {told['name']} already exists")
        found.name = told["name"]
    if told.get("editor", found.editor) not in _EDITORS:
        raise Refusal(400, "there is no such editor", complaint=True)
    check_profile(told.get("resource_profile", found.resource_profile))
    found.editor = told.get("editor", found.editor)
    found.resource_profile = told.get("resource_profile", found.resource_profile)
    found.updated = now()
    return Answer.of(project_record(found))


def check_profile(name: str) -> None:
    """Refuse a resource profile that does not exist."""
    if name not in PROFILES:
        raise Refusal(400, f"there is no resource profile {name}", complaint=True)


def delete(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Remove a project that nothing runs of; its jobs go too, its endpoints are free (assumed)."""
    found = cluster.own_project(user, project)
    with cluster.lock:
        pods = [*cluster.deployments, *cluster.runs]
        if any(pod.project is found and pod.is_active for pod in pods):
            raise Refusal(409, "the project has an active session, deployment or run")
        cluster.projects.remove(found)
        cluster.deployments[:] = [d for d in cluster.deployments if d.project is not found]
        cluster.jobs[:] = [job for job in cluster.jobs if job.project is not found]
        cluster.runs[:] = [run for run in cluster.runs if run.project is not found]
        for endpoint in [name for name, owner in cluster.claims.items() if owner is found]:
            del cluster.claims[endpoint]
    return Answer.of(None)


def list_collaborators(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Who may see and change a project, beside its owner."""
    return Answer.of(cluster.project(user, project).collaborators)


def list_sessions(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Nobody edits anything here."""
    cluster.project(user, project)
    return Answer.of([])


def actions(cluster: Cluster, call: Call, user: str) -> Answer:
    """What one may choose from when a project is made."""
    if call.asked("q") != "create_action":
        raise Refusal(400, "q=create_action is needed", complaint=True)
    profiles = [{"name": name, "description": text} for name, text in PROFILES.items()]
    editors = [{"id": name, "name": name, "is_default": name == _EDITORS[0]} for name in _EDITORS]
    return Answer.of([{"resource_profiles": profiles, "editors": editors}])
