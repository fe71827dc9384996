"""Deployments: start, look at, change, stop; tokens, logs, collaborators, static endpoints.

An endpoint belongs to the project that was first deployed there, also while nothing runs at it;
another project is refused until that one is deleted. (Help of `ae5 deployment start`. How the
refusal looks is assumed: status 409.)
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from tests.standins.ae5.projects import check_profile
from tests.standins.ae5.state import Deployment, Project, Revision, new_hex
from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_COLLABORATOR = {"id": str, "type": str, "permission": str}
# What ae5-tools sends along when it sets what it has read before.
_ECHOED = {"_record_type": str, "first_name": str, "last_name": str, "email": str}


def deployment_record(cluster: Cluster, deployment: Deployment) -> dict[str, Any]:
    """As the API tells of it."""
    project = deployment.project
    return {
        "id": deployment.id,
        "name": deployment.name,
        "owner": deployment.owner,
        "public": deployment.public,
        "command": deployment.command,
        "revision": deployment.revision,
        "resource_profile": deployment.resource_profile,
        "created": deployment.created,
        "updated": deployment.updated,
        "state": deployment.state,
        "status_text": deployment.status_text,
        "goal_state": deployment.goal_state,
        "url": f"https://{deployment.endpoint}.{cluster.authority}/",
        "project_url": project.url,
        "project_name": project.name,
        "project_owner": project.owner,
    }


def read_source(project: Project, told: dict[str, Any]) -> Revision:
    """The revision that a body names twice, by address and by name.

    Raises:
        Refusal: The two do not fit, or something else in the body does not exist.
    """
    revision = project.revision(told["revision"])
    if revision is None or told["source"] != f"{project.url}/revisions/{revision.name}":
        raise Refusal(400, "source and revision do not fit", complaint=True)
    if told["target"] != "deploy":
        raise Refusal(400, "target must be deploy", complaint=True)
    if revision.command(told["command"]) is None:
        raise Refusal(400, f"there is no command {told['command']}", complaint=True)
    check_profile(told["resource_profile"])
    return revision


def start(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """A new deployment; the answer comes before anything runs."""
    found = cluster.project(user, project)
    told = cluster.read_json(
        call,
        {
            "source": str,
            "revision": str,
            "resource_profile": str,
            "command": str,
            "public": bool,
            "target": str,
        },
        optional={"name": str, "static_endpoint": str},
    )
    read_source(found, told)
    hexadecimal = new_hex()
    endpoint = told.get("static_endpoint", "").lower()
    if "static_endpoint" in told and not _LABEL.fullmatch(endpoint):
        raise Refusal(400, f"invalid static endpoint {endpoint!r}", complaint=True)
    deployment = Deployment(
        hexadecimal,
        told.get("name") or found.name,
        user,
        found,
        told["revision"],
        told["command"],
        told["resource_profile"],
        endpoint=endpoint or hexadecimal,
        is_static=bool(endpoint),
        public=told["public"],
    )
    with cluster.lock:
        if endpoint:
            if cluster.at_endpoint(endpoint) is not None:
                raise Refusal(409, f'endpoint "{endpoint}" is already in use')
            if cluster.keeps_claims and cluster.claims.get(endpoint, found) is not found:
                raise Refusal(409, f'endpoint "{endpoint}" is claimed by another project')
            cluster.claims[endpoint] = found
        cluster.deployments.append(deployment)
    record = deployment_record(cluster, deployment)
    cluster.pods.in_background(lambda: _live(cluster, deployment))
    return Answer.of(record, 201)


def _live(cluster: Cluster, deployment: Deployment) -> None:
    """From the start of a pod to its end."""
    if cluster.faults.take_pod("stalled_deployments"):
        deployment.become("starting", "Starting")
        return
    if not cluster.faults.take_pod("failing_deployments"):
        cluster.pods.run(deployment)
    if deployment.goal_state == "started":
        deployment.become("failed", "App failed to run")


def stop(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """End a deployment: its token is void at once, its record goes when its pod has gone."""
    found = cluster.own_deployment(user, deployment)
    with cluster.lock:
        if found.goal_state == "stopped":
            raise Refusal(409, "the deployment is being stopped")
        found.goal_state, found.token = "stopped", ""
        found.become("stopping", "Stopping")

    def end() -> None:
        cluster.pods.stop(found)
        with cluster.lock:
            cluster.stopped.append(found)
            if found in cluster.deployments:
                cluster.deployments.remove(found)

    cluster.pods.in_background(end)
    return Answer.of(None)


def list_deployments(cluster: Cluster, call: Call, user: str) -> Answer:
    """All that the caller may see, bare."""
    found = cluster.visible_deployments(user)
    return Answer.of([deployment_record(cluster, each) for each in found])


def list_of_project(cluster: Cluster, call: Call, user: str, project: str) -> Answer:
    """Those of one project."""
    wanted = cluster.project(user, project)
    found = [each for each in cluster.visible_deployments(user) if each.project is wanted]
    return Answer.of([deployment_record(cluster, each) for each in found])


def show(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """One of them."""
    return Answer.of(deployment_record(cluster, cluster.deployment(user, deployment)))


def patch(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """Change the record in place; what runs stays as it is (assumed)."""
    found = cluster.own_deployment(user, deployment)
    optional = {"public": bool, "resource_profile": str, "revision": str}
    told = cluster.read_json(call, {}, optional=optional)
    check_profile(told.get("resource_profile", found.resource_profile))
    if found.project.revision(told.get("revision", found.revision)) is None:
        raise Refusal(400, "there is no such revision", complaint=True)
    found.public = told.get("public", found.public)
    found.resource_profile = told.get("resource_profile", found.resource_profile)
    found.revision = told.get("revision", found.revision)
    return Answer.of(deployment_record(cluster, found))


def logs(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """What the app, the proxy in front of it and Kubernetes have to say."""
    found = cluster.deployment(user, deployment)
    name = f"anaconda-app-{found.hex}-{found.hex[:5]}"
    events = f"Scheduled pod {name}\nPulled image\nCreated container app\nStarted container app\n"
    proxy = "App Proxy is fully operational!\n"
    return Answer.of({"app": found.log, "proxy": proxy, "events": events, "name": name})


def token(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """The one token of this deployment."""
    found = cluster.own_deployment(user, deployment)
    with cluster.lock:
        if found.goal_state == "stopped":
            raise Refusal(409, "the deployment is being stopped")
        found.token = found.token or f"{secrets.token_hex(16)}.{secrets.token_urlsafe(32)}"
    return Answer.of({"token": found.token})


def list_collaborators(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """Who may look at it, beside the owner."""
    return Answer.of(cluster.deployment(user, deployment).collaborators)


def set_collaborators(cluster: Cluster, call: Call, user: str, deployment: str) -> Answer:
    """All of them at once; who is not known is an error of the action."""
    found = cluster.own_deployment(user, deployment)
    told = [
        {name: each[name] for name in _COLLABORATOR}
        for each in cluster.read_json_list(call, _COLLABORATOR, _ECHOED)
    ]
    for each in told:
        if each["type"] not in ("user", "group") or each["permission"] not in ("r", "rw"):
            raise Refusal(400, "type is user or group, permission r or rw", complaint=True)
        known = cluster.groups if each["type"] == "group" else cluster.users
        if each["id"] not in known:
            problem = f"{each['type']} {each['id']} does not exist"
            return Answer.of({"action": {"error": True, "done": True, "message": problem}})
    found.collaborators = told
    return Answer.of({"action": {"error": False, "done": True}, "collaborators": told})


def list_endpoints(cluster: Cluster, call: Call, user: str) -> Answer:
    """The static endpoints of the whole cluster, whether anything runs there or not."""
    with cluster.lock:
        records = [
            {"id": name, "project_url": project.url, "owner": project.owner}
            for name, project in sorted(cluster.claims.items())
        ]
    return Answer.of({"data": records})
