"""A stand-in for an AE5 cluster: HTTPS on 127.0.0.1, in threads of this process.

It is strict: whatever a real `ae5` would not send is refused and noted in `Cluster.complaints`,
which has to be empty in the end. Uploaded commands are run for real.

Host names: the cluster is `ae5.test`, its deployments `ENDPOINT.ae5.test`; `tunnel.py` says how
clients find them, and `Cluster.client_environment` has what they need for it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.standins.ae5 import gateway, jobs, projects, routes
from tests.standins.ae5.faults import Cut, Fault, Faults
from tests.standins.ae5.login import Login
from tests.standins.ae5.pods import Pods
from tests.standins.ae5.secrets import Secrets
from tests.standins.ae5.state import Deployment, Job, Pod, Project, Run
from tests.standins.ae5.tls import Certificate, make_certificate
from tests.standins.ae5.tunnel import Tunnel, run_tunnel
from tests.standins.ae5.wire import Answer, Call, Connection, Refusal, run_https

HOST = "ae5.test"
USER, PASSWORD = "mlflow-svc", "pw-of-the-service-account"
READER, READER_PASSWORD = "reader", "pw-of-the-reader"
ADMIN, ADMIN_PASSWORD = "keycloak", "pw-of-the-administrator"
# Bodies that hold a secret by right; what is left of the log must hold none.
_SILENT = ("/credentials/user", "/authenticate", "/token", "/logout", "/upload")
_A_LITTLE = 0.02

_P = TypeVar("_P", bound=Pod)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Seen:
    """A call as it was answered.

    Args:
        method: In capital letters.
        path: Without the query; with the endpoint in front when it went to a deployment.
        status: 0 when the connection was cut.
        user: Who called, if known.
    """

    method: str
    path: str
    status: int
    user: str = ""


@dataclass
class Cluster:
    """A running one.

    Args:
        folder: Where it keeps archives, pods and secrets.
        host: Its name.
        public_port: The port in its address; 443 is not written.
        users: Passwords by name.
        administrators: Passwords of Keycloak's own accounts by name.
        groups: Members by name; `everyone` is always all users.
        upload_polls: So often the activity is asked for before an upload is done; 0: at once.
        runs_outlive_jobs: Runs stay when their job is deleted.
        keeps_claims: An endpoint stays its project's when nothing runs there.
        bad_token_status: The gateway's answer to a token that is not valid.
        complaints: What no client should have done.
        calls: Everything that was called, in the order of the answers.
    """

    folder: Path
    host: str = HOST
    public_port: int = 443
    users: dict[str, str] = field(default_factory=lambda: {USER: PASSWORD, READER: READER_PASSWORD})
    administrators: dict[str, str] = field(default_factory=lambda: {ADMIN: ADMIN_PASSWORD})
    groups: dict[str, set[str]] = field(default_factory=lambda: {"everyone": set()})
    upload_polls: int = 0
    runs_outlive_jobs: bool = False
    keeps_claims: bool = True
    bad_token_status: int = 401
    complaints: list[str] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)
    port: int = 0
    faults: Faults = field(default_factory=Faults)
    login: Login = field(default_factory=Login)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    projects: list[Project] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    stopped: list[Deployment] = field(default_factory=list)
    claims: dict[str, Project] = field(default_factory=dict)
    pending_uploads: dict[str, int] = field(default_factory=dict)
    certificate: Certificate = field(init=False)
    tunnel: Tunnel = field(init=False)
    secrets: Secrets = field(init=False)
    pods: Pods = field(init=False)
    user_ids: dict[str, str] = field(init=False)
    _lines: list[str] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.user_ids = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in self.users}
        self.certificate = make_certificate(self.folder, self.host)
        self.secrets = Secrets(self.folder / "secrets")
        self.pods = Pods(self.folder / "pods", self.authority, {}, self.secrets.mount)

    @property
    def authority(self) -> str:
        """The host with its port, as addresses and the setting AE5_HOSTNAME have it."""
        return self.host if self.public_port == 443 else f"{self.host}:{self.public_port}"

    def url(self, endpoint: str = "") -> str:
        """The address of the cluster, or of a deployment, without a slash at the end."""
        return f"https://{endpoint}.{self.authority}" if endpoint else f"https://{self.authority}"

    def client_environment(self) -> dict[str, str]:
        """What a client needs to find the cluster and to trust it."""
        bundle = str(self.certificate.path)
        return {
            "HTTPS_PROXY": self.tunnel.url,
            "https_proxy": self.tunnel.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
        }

    @property
    def log(self) -> str:
        """What anybody could have logged: calls with their bodies, and what pods have written.

        Bodies of sign-ins, uploads and new secrets are left out: they hold secrets by right.
        """
        pods: list[Pod] = [*self.deployments, *self.stopped, *self.runs]
        return "\n".join([*self._lines, *(pod.log for pod in pods)])

    def fire(self, job: str) -> Run:
        """Run a job (id or name) now, as its schedule would."""
        found = next(each for each in self.jobs if job in (each.id, each.name))
        return jobs.start_run(self, found)

    def wait_for(self, pod: _P, *states: str, timeout: float = 30) -> _P:
        """Wait until a pod is in one of these states; fail with its log when it does not."""
        deadline = time.monotonic() + timeout
        while pod.state not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"{pod.name} is {pod.state}, not {states}:\n{pod.log}")
            time.sleep(_A_LITTLE)
        return pod

    def commit(self, project: str, tag: str, archive: Path) -> None:
        """A new revision of a project (by name), as somebody commits it in a session."""
        found = next(each for each in self.projects if each.name == project)
        projects.commit(self, found, tag, archive.name, archive.read_bytes())

    def count(self, method: str, path: str) -> int:
        """How many calls there were with this method to this path."""
        return sum((each.method, each.path) == (method, path) for each in self.calls)

    # What handlers ask for.

    def visible_projects(self, user: str) -> list[Project]:
        """The user's own, and those that others share with them."""
        return [each for each in self.projects if self._is_shared(user, each)]

    def _is_shared(self, user: str, thing: Project | Deployment) -> bool:
        return thing.owner == user or any(
            each["id"] == user
            if each["type"] == "user"
            else each["id"] == "everyone" or user in self.groups.get(each["id"], ())
            for each in thing.collaborators
        )

    def may_look(self, user: str, deployment: Deployment) -> bool:
        """Whether a user gets to see a deployment in a browser."""
        return deployment.public or self._is_shared(user, deployment)

    def visible_deployments(self, user: str) -> list[Deployment]:
        """Those that the user may see, in the order of their start."""
        return [each for each in self.deployments if self.may_look(user, each)]

    def at_endpoint(self, endpoint: str) -> Deployment | None:
        """What is deployed there, until its pod has gone."""
        return next((each for each in self.deployments if each.endpoint == endpoint), None)

    def project(self, user: str, number: str) -> Project:
        """A project by its id; 404 without."""
        return _one("project", [each for each in self.visible_projects(user) if each.id == number])

    def own_project(self, user: str, number: str) -> Project:
        """A project of the user's own."""
        return _one("project", [p for p in self.projects if (p.id, p.owner) == (number, user)])

    def deployment(self, user: str, number: str) -> Deployment:
        """A deployment by its id; 404 without."""
        visible = self.visible_deployments(user)
        return _one("deployment", [each for each in visible if each.id == number])

    def own_deployment(self, user: str, number: str) -> Deployment:
        """A deployment of the user's own."""
        found = [d for d in self.deployments if (d.id, d.owner) == (number, user)]
        return _one("deployment", found)

    def job(self, user: str, number: str) -> Job:
        """A job of the user's own."""
        return _one("job", [each for each in self.jobs if (each.id, each.owner) == (number, user)])

    def run(self, user: str, number: str) -> Run:
        """A run of the user's own."""
        return _one("run", [each for each in self.runs if (each.id, each.owner) == (number, user)])

    def read_json(
        self,
        call: Call,
        needed: Mapping[str, Any],
        optional: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The object in a body, with exactly these fields of these types."""
        return _checked(_parse(call), needed, optional or {})

    def read_json_list(
        self, call: Call, needed: Mapping[str, Any], optional: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The list in a body, of such objects."""
        told = _parse(call)
        if not isinstance(told, list):
            raise Refusal(422, "a list is needed", complaint=True)
        return [_checked(each, needed, optional) for each in told]

    def meet_fault(self, method: str, path: str) -> Fault | None:
        """The fault that is meant for this call; waits and ends sessions when it says so."""
        fault = self.faults.take(method, path)
        if fault is not None:
            time.sleep(fault.slow_s)
            if fault.is_expired:
                self.login.expire()
        return fault

    def handle(self, connection: Connection) -> None:
        """Answer one request, whoever it is for."""
        call = connection.call()
        endpoint, _, rest = call.host.partition(".")
        if call.host != self.authority and rest != self.authority:
            self._note(call, Seen(call.method, call.path, 421), f"unknown host {call.host}")
            connection.close_connection = True
            connection.answer(Answer.page("unknown host", 421))
        elif call.host == self.authority:
            self._platform(connection)
        else:
            status = gateway.serve(self, connection, endpoint)
            self._note(call, Seen(call.method, f"{endpoint}{call.path}", status))

    def _platform(self, connection: Connection) -> None:
        call = connection.call()
        fault = self.meet_fault(call.method, call.path)
        if fault is not None and fault.cut is Cut.REQUEST:
            connection.swallow_half()
            self._note(call, Seen(call.method, call.path, 0))
            connection.cut()
            return
        call = connection.call(b"".join(connection.iter_body()))
        user, complaint = "", ""
        try:
            if fault is not None and fault.status is not None:
                raise Refusal(fault.status, "as was asked for")
            answer, user = routes.dispatch(self, call)
        except Refusal as refusal:
            answer = refusal.answer
            complaint = str(refusal) if refusal.complaint else ""
        except Exception:
            answer = Answer.of({"error": {"message": "internal error"}}, 500)
            complaint = traceback.format_exc()
        self._note(call, Seen(call.method, call.path, answer.status, user), complaint)
        connection.answer(answer, fault.cut if fault is not None else None)

    def _note(self, call: Call, seen: Seen, complaint: str = "") -> None:
        body = "" if call.path.endswith(_SILENT) else call.body.decode("utf-8", "replace")
        agent = call.headers.get("user-agent", "")
        with self.lock:
            self.calls.append(seen)
            address = f"{call.host}{call.target}"
            self._lines.append(f"{seen.method} {address} {seen.status} {agent} {body}")
            if complaint:
                self.complaints.append(f"{seen.method} {seen.path} {seen.status}: {complaint}")


def _one(kind: str, found: list[_T]) -> _T:
    if not found:
        raise Refusal(404, f"there is no such {kind}")
    return found[0]


def _parse(call: Call) -> Any:
    if call.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Refusal(415, "the body has to be JSON", complaint=True)
    try:
        return json.loads(call.body)
    except ValueError as err:
        raise Refusal(400, "the body is no JSON", complaint=True) from err


def _checked(told: Any, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise Refusal(422, "an object is needed", complaint=True)
    known = {**needed, **optional}
    if problems := sorted(({*needed} - {*told}) | ({*told} - {*known})):
        raise Refusal(422, f"unknown or missing fields: {problems}", complaint=True)
    wrong = [name for name, value in told.items() if not isinstance(value, known[name])]
    if wrong:
        raise Refusal(422, f"fields of a wrong type: {wrong}", complaint=True)
    return told


@contextlib.contextmanager
def cluster(folder: Path, **settings: Any) -> Iterator[Cluster]:
    """Run a cluster; everything it has started is killed at the end.

    Args:
        folder: Made when missing.
        settings: Of `Cluster`.
    """
    made = Cluster(folder, **settings)
    with run_https(made.certificate.server_context(), made.handle) as port:
        made.port = port
        with run_tunnel(made.host, made.public_port, port) as made.tunnel:
            made.pods.environment.update(made.client_environment())
            try:
                yield made
            finally:
                made.pods.close()
