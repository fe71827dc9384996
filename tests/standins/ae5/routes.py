"""Which calls there are: method, path, query, and who answers them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tests.standins.ae5 import deployments, jobs, login, projects, secrets
from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

# Takes cluster, call and, as the case may be, the user and the names in the path.
Handler: TypeAlias = Callable[..., Answer]


@dataclass(frozen=True)
class Route:
    """One call of the API.

    Args:
        method: In capital letters.
        path: With names of variables in braces.
        handler: Who answers.
        query: The parameters it knows.
        takes_body: A body is allowed.
        for_users: Somebody has to be signed in, and is told to the handler.
    """

    method: str
    path: str
    handler: Handler
    query: frozenset[str] = frozenset()
    takes_body: bool = False
    for_users: bool = True
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "pattern", re.compile(pattern))


def _api(method: str, path: str, handler: Handler, *query: str, body: bool = False) -> Route:
    return Route(method, f"/api/v2/{path}", handler, frozenset(query), body)


def _open(method: str, path: str, handler: Handler, *query: str, body: bool = False) -> Route:
    return Route(method, path, handler, frozenset(query), body, for_users=False)


def _admin(method: str, path: str, handler: Handler, *query: str) -> Route:
    def checked(cluster: Cluster, call: Call, **names: str) -> Answer:
        login.need_admin(cluster, call)
        return handler(cluster, call)

    return Route(method, f"{login.ADMIN}/{path}", checked, frozenset(query), for_users=False)


_CONNECT = f"{login.REALM}/protocol/openid-connect"
_STATIC = "/platform/deploy/api/v1/apps/static-endpoints"

ROUTES: tuple[Route, ...] = (
    _open("GET", "/", login.home),
    _open("GET", "/login", login.arrive, "code", "state"),
    _open("GET", "/logout", login.sign_out),
    _open(
        "GET",
        f"{_CONNECT}/auth",
        login.authenticate,
        *("client_id", "scope", "response_type", "redirect_uri", "state"),
    ),
    _open(
        "POST",
        f"{login.REALM}/login-actions/authenticate",
        login.submit,
        *("session_code", "redirect_uri", "state"),
        body=True,
    ),
    _open("POST", f"{login.MASTER}/token", login.admin_token, body=True),
    _open("POST", f"{login.MASTER}/logout", login.admin_sign_out, body=True),
    _admin("GET", "users", login.list_users, "first", "max"),
    _admin("POST", "users/{user}/impersonation", login.impersonate),
    Route("GET", _STATIC, deployments.list_endpoints),
    _api("GET", "projects", projects.list_projects),
    _api("GET", "projects/actions", projects.actions, "q"),
    _api("POST", "projects/upload", projects.upload, body=True),
    _api("PATCH", "projects/{project}", projects.patch, body=True),
    _api("DELETE", "projects/{project}", projects.delete),
    _api("GET", "projects/{project}/activity", projects.list_activity, "sort", "page[size]"),
    _api("GET", "projects/{project}/revisions", projects.list_revisions),
    _api("GET", "projects/{project}/revisions/{revision}/archive", projects.download),
    _api("GET", "projects/{project}/collaborators", projects.list_collaborators),
    _api("GET", "projects/{project}/sessions", projects.list_sessions),
    _api("GET", "projects/{project}/deployments", deployments.list_of_project),
    _api("POST", "projects/{project}/deployments", deployments.start, body=True),
    _api("GET", "projects/{project}/jobs", jobs.jobs_of_project),
    _api("POST", "projects/{project}/jobs", jobs.create, body=True),
    _api("GET", "projects/{project}/runs", jobs.runs_of_project),
    _api("GET", "deployments", deployments.list_deployments),
    _api("GET", "deployments/{deployment}", deployments.show),
    _api("PATCH", "deployments/{deployment}", deployments.patch, body=True),
    _api("DELETE", "deployments/{deployment}", deployments.stop),
    _api("GET", "deployments/{deployment}/logs", deployments.logs),
    _api("POST", "deployments/{deployment}/token", deployments.token),
    _api("GET", "deployments/{deployment}/collaborators", deployments.list_collaborators),
    _api("PUT", "deployments/{deployment}/collaborators", deployments.set_collaborators, body=True),
    _api("GET", "jobs", jobs.list_jobs),
    _api("GET", "jobs/{job}", jobs.show_job),
    _api("DELETE", "jobs/{job}", jobs.delete_job),
    _api("POST", "jobs/{job}/pause", jobs.pause),
    _api("POST", "jobs/{job}/unpause", jobs.unpause),
    _api("GET", "jobs/{job}/runs", jobs.runs_of_job),
    _api("POST", "jobs/{job}/runs", jobs.run_job),
    _api("GET", "runs", jobs.list_runs),
    _api("GET", "runs/{run}", jobs.show_run),
    _api("DELETE", "runs/{run}", jobs.delete_run),
    _api("GET", "runs/{run}/logs", jobs.run_logs),
    _api("POST", "runs/{run}/stop", jobs.stop_run),
    _api("GET", "credentials/user", secrets.list_secrets),
    _api("POST", "credentials/user", secrets.set_secret, body=True),
    _api("DELETE", "credentials/user/{key}", secrets.delete_secret),
)


def dispatch(cluster: Cluster, call: Call) -> tuple[Answer, str]:
    """Answer a call to the platform itself.

    Returns:
        The answer, and the user who has called, if known.

    Raises:
        Refusal: It is not one that the platform knows, or not in this form.
    """
    tried = ((route, route.pattern.fullmatch(call.path)) for route in ROUTES)
    found = [(route, match) for route, match in tried if match is not None]
    if not found:
        raise Refusal(404, f"no such path: {call.path}", complaint=True)
    fitting = [(route, match) for route, match in found if route.method == call.method]
    if not fitting:
        raise Refusal(405, f"{call.method} is not for {call.path}", complaint=True)
    route, match = fitting[0]
    user = [cluster.login.user_of(call)] if route.for_users else []
    if unknown := {name for name, _ in call.query} - route.query:
        raise Refusal(400, f"unknown parameters: {sorted(unknown)}", complaint=True)
    if call.body and not route.takes_body:
        raise Refusal(400, "a body where none is expected", complaint=True)
    return route.handler(cluster, call, *user, **match.groupdict()), "".join(user)
