"""The checks of `doctor`: each looks at one thing and says what to do about it.

Nothing is created or changed, but for the probe object that is deleted again at the destination.
"""

import functools
import importlib.util
import logging
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlflow_server import __version__
from mlflow_server.artifacts.probe import needs_mlflow, probe
from mlflow_server.deadline import DeadlineExceededError, start_within
from mlflow_server.errors import ExitCode, OpsError, UnavailableError
from mlflow_server.host import file_system_of
from mlflow_server.report import Item, Status
from mlflow_server.server.environment import TELEMETRY_OFF
from mlflow_server.server.plan import LOOPBACK_HOSTS, LaunchPlan
from mlflow_server.server.preflight import bind, check_store
from mlflow_server.settings.load import LoadedSettings
from mlflow_server.store.engine import (
    connect,
    is_wal,
    require_driver,
    sqlite_path,
)
from mlflow_server.store.limits import free_connections
from mlflow_server.store.revision import (
    SchemaState,
    SchemaStatus,
)
from mlflow_server.units import render_size
from mlflow_server.uris import ArtifactScheme, Dialect, mask_uri

log = logging.getLogger(__name__)

TOTAL_S = 2.6
MLFLOW_VERSION = "3.17.2"
_MAX_CLOCK_SKEW_S = 2.0
_LITTLE_TEMP_BYTES = 5 * 1024**3
_SHOWN_VERSIONS = ("mlflow", "SQLAlchemy", "uvicorn", "gunicorn", "psycopg", "psycopg2-binary")


@dataclass(frozen=True)
class Finding:
    """An item and the exit code it asks for (0 when it is fine)."""

    item: Item
    exit_code: ExitCode = ExitCode.OK


Check = Callable[[LoadedSettings, LaunchPlan, Mapping[str, str]], Item]


def examine(
    loaded: LoadedSettings, plan: LaunchPlan, environ: Mapping[str, str]
) -> tuple[list[Item], ExitCode]:
    """Run every check side by side, 2.6 s in all.

    Returns:
        One item per check, always in the same order, and 0, 3, 69 or 78 for all of them together.
    """
    # Before the threads: it hides a warning of its own while it is imported, and another thread
    # that does the same meanwhile would show it.
    import requests  # noqa: F401

    checks: Sequence[tuple[str, Check]] = (
        ("versions", check_versions),
        ("settings", check_settings),
        ("driver", check_driver),
        ("schema", check_schema),
        ("clock", check_clock),
        ("connections", check_connections),
        ("sqlite", check_sqlite),
        ("artifacts", check_artifacts),
        ("temp-space", check_temp_space),
        ("port", check_port),
        ("network", check_network),
        ("allowed-hosts", check_allowed_hosts),
        ("tracking-uri", check_tracking_uri),
        ("telemetry", check_telemetry),
    )
    started = [
        (name, start_within(TOTAL_S, functools.partial(check, loaded, plan, environ)))
        for name, check in checks
    ]
    findings = [_outcome(name, wait) for name, wait in started]
    return [finding.item for finding in findings], _overall(findings)


def _outcome(name: str, wait: Callable[[], Item]) -> Finding:
    try:
        item = wait()
    except DeadlineExceededError:
        item = Item(name, Status.FAILED, f"no answer within {TOTAL_S:g} s", "look at the network")
        return Finding(item, ExitCode.UNAVAILABLE)
    except OpsError as err:
        return Finding(Item(name, Status.FAILED, err.message, err.hint), err.exit_code)
    except Exception as err:
        log.debug("the check %s failed", name, exc_info=True)
        item = Item(name, Status.FAILED, f"the check itself failed ({type(err).__name__})")
        return Finding(item, ExitCode.ATTENTION)
    troubled = item.status in (Status.WARNING, Status.FAILED)
    return Finding(item, ExitCode.ATTENTION if troubled else ExitCode.OK)


def _overall(findings: Sequence[Finding]) -> ExitCode:
    codes = {finding.exit_code for finding in findings}
    for code in (ExitCode.SETTINGS, ExitCode.UNAVAILABLE):
        if code in codes:
            return code
    return ExitCode.OK if codes == {ExitCode.OK} else ExitCode.ATTENTION


def check_versions(_: LoadedSettings, __: LaunchPlan, ___: Mapping[str, str]) -> Item:
    """Is the MLflow underneath the one this release was made for?"""
    versions: dict[str, str] = {}
    for name in _SHOWN_VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    detail = f"bundle {__version__}, MLflow {versions.get('mlflow', 'missing')}, Python {python}"
    facts = {"bundle": __version__, "python": python, **versions}
    if versions.get("mlflow") != MLFLOW_VERSION:
        fix = f"pip install mlflow=={MLFLOW_VERSION}"
        return Item("versions", Status.WARNING, detail, fix, facts)
    return Item("versions", Status.OK, detail, facts=facts)


def check_settings(loaded: LoadedSettings, plan: LaunchPlan, _: Mapping[str, str]) -> Item:
    """Anything allowed but unwise? Wrong settings end the command before."""
    secrets = loaded.settings.secrets.directory
    read_from = f"secrets from {secrets}" if secrets.is_dir() else f"no secrets folder {secrets}"
    if plan.warnings:
        detail = "; ".join(plan.warnings)
        return Item("settings", Status.WARNING, detail, "mlflow-server settings")
    return Item("settings", Status.OK, f"all valid; {read_from}")


def check_driver(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Is a driver installed for every store?"""
    drivers = {uri.dialect.value: require_driver(uri) for uri in plan.stores}
    detail = ", ".join(f"{dialect} by {driver}" for dialect, driver in drivers.items())
    return Item("driver", Status.OK, detail, facts=drivers)


def check_schema(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Can the stores be reached, and do their schemas fit?"""
    statuses: list[SchemaStatus] = []
    for uri in plan.stores:
        statuses.append(check_store(uri))
    if any(status.state is SchemaState.EMPTY for status in statuses):
        return Item("schema", Status.OK, f"{plan.store.shown}: empty; serve initialises it")
    facts = {"revision": statuses[0].current}
    detail = f"{plan.store.shown}: revision {statuses[0].current}, as this release needs"
    return Item("schema", Status.OK, detail, facts=facts)


_CLOCK_QUERIES = {
    Dialect.POSTGRESQL: "SELECT extract(epoch FROM clock_timestamp())",
    # UNIX_TIMESTAMP() cannot tell the two hours at the end of summer time apart.
    Dialect.MYSQL: "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6",
}


def check_clock(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Do this machine and the database agree on the time? Ages of deleted things depend on it."""
    query = _CLOCK_QUERIES.get(plan.store.dialect)
    if query is None:
        return Item("clock", Status.SKIPPED, f"{plan.store.dialect} has no clock to compare with")
    import sqlalchemy

    with connect(plan.store) as connection:
        before = time.time()
        there = float(connection.execute(sqlalchemy.text(query)).scalar_one())
        here = (before + time.time()) / 2
    skew_s = there - here
    facts = {"skew_s": round(skew_s, 3)}
    detail = f"the database is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) > _MAX_CLOCK_SKEW_S:
        fix = "let both machines keep time by NTP"
        return Item("clock", Status.WARNING, detail, fix, facts)
    return Item("clock", Status.OK, detail, facts=facts)


def check_connections(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Do the workers' pools fit into what the database allows?"""
    if plan.store.is_sqlite:
        return Item("connections", Status.SKIPPED, "SQLite has no limit")
    with connect(plan.store) as connection:
        limit = free_connections(connection)
    detail = f"{plan.workers} workers may open {plan.max_connections} connections"
    facts = {"workers": plan.workers, "needed": plan.max_connections, "allowed": limit}
    if limit is None:
        return Item("connections", Status.OK, detail, facts=facts)
    detail += f", the database allows {limit}"
    if plan.max_connections > limit:
        fix = "lower MLFLOW_SQLALCHEMYSTORE_POOL_SIZE or MLFLOW_WORKERS, or raise max_connections"
        return Item("connections", Status.WARNING, detail, fix, facts)
    return Item("connections", Status.OK, detail, facts=facts)


def check_sqlite(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Journal mode and file system of a SQLite store."""
    if not plan.store.is_sqlite:
        return Item("sqlite", Status.SKIPPED, f"the store is {plan.store.dialect}")
    path = sqlite_path(plan.store)
    place = file_system_of(path)
    facts: dict[str, object] = {"file_system": place.kind}
    if place.is_network:
        detail = f"{path} lies on {place.kind}, where SQLite's locks are not reliable"
        return Item("sqlite", Status.WARNING, detail, "move to PostgreSQL", facts)
    if not path.exists() or path.stat().st_size == 0:
        return Item("sqlite", Status.OK, f"no database in {path} yet", facts=facts)
    mode = "wal" if is_wal(path) else "rollback"
    facts["journal_mode"] = mode
    detail = f"journal mode {mode}, on {place.kind or 'an unknown file system'}"
    if mode != "wal":
        detail += "; serve switches it to wal"
    return Item("sqlite", Status.OK, detail, facts=facts)


def check_artifacts(_: LoadedSettings, plan: LaunchPlan, environ: Mapping[str, str]) -> Item:
    """Can the destination be written, read and cleaned?"""
    if needs_mlflow(plan.destination):
        detail = f"{plan.destination.shown}: only a running server can probe this; ask its /readyz"
        return Item("artifacts", Status.SKIPPED, detail)
    if plan.destination.scheme is ArtifactScheme.PROXY:
        return Item("artifacts", Status.SKIPPED, "another tracking server keeps the artifacts")
    probe(plan.destination, environ, timeout_s=TOTAL_S - 0.1)
    detail = f"{plan.destination.shown}: write, read, delete work"
    return Item("artifacts", Status.OK, detail)


def check_temp_space(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Is there room for what MLflow downloads whole before it sends the first byte?"""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    facts = {"folder": str(folder), "free_bytes": free}
    detail = f"{render_size(free)} free in {folder}"
    if plan.destination.scheme is ArtifactScheme.LOCAL:
        return Item(
            "temp-space", Status.OK, detail + "; local artifacts do not need it", facts=facts
        )
    if free < _LITTLE_TEMP_BYTES:
        fix = "point TMPDIR at a larger volume: every download from a bucket passes through it"
        return Item("temp-space", Status.WARNING, detail, fix, facts)
    return Item("temp-space", Status.OK, detail, facts=facts)


def check_port(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Is the port free, or does a server of ours answer there?"""
    try:
        bind(plan.host, plan.port).close()
    except UnavailableError as err:
        if _answers_livez(plan):
            return Item("port", Status.OK, f"a tracking server answers on port {plan.port}")
        return Item("port", Status.WARNING, err.message, err.hint)
    return Item("port", Status.OK, f"port {plan.port} of {plan.host} is free")


def _answers_livez(plan: LaunchPlan) -> bool:
    import http.client

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, plan.port, timeout=1)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_network(_: LoadedSettings, __: LaunchPlan, ___: Mapping[str, str]) -> Item:
    """Are uvloop and httptools there, and does TCP_NODELAY reach accepted connections?"""
    missing = [name for name in ("uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        fix = f"pip install {' '.join(missing)}"
        return Item("network", Status.FAILED, f"not installed: {', '.join(missing)}", fix)
    with bind("127.0.0.1", 0) as listener:
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout=1):
            accepted, _address = listener.accept()
            with accepted:
                no_delay = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if not no_delay:
        detail = "accepted connections lack TCP_NODELAY: answers wait 40 ms"
        return Item("network", Status.FAILED, detail, "report it with the kernel version")
    return Item("network", Status.OK, "uvloop, httptools and TCP_NODELAY are in effect")


def check_allowed_hosts(_: LoadedSettings, plan: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Will users reach the server under its public name?"""
    public = [name for name in plan.allowed_names if name not in LOOPBACK_HOSTS]
    facts = {"names": list(plan.allowed_names), "origins": list(plan.allowed_origins)}
    if public:
        detail = f"answers to {', '.join(public)}, loopback and private addresses"
        return Item("allowed-hosts", Status.OK, detail, facts=facts)
    detail = "answers to loopback and private addresses only"
    if plan.host in LOOPBACK_HOSTS and plan.host != "0.0.0.0":  # noqa: S104
        return Item("allowed-hosts", Status.OK, detail, facts=facts)
    fix = "set TRACKING_SERVER_PUBLIC_URL to what users type"
    return Item("allowed-hosts", Status.WARNING, detail, fix, facts)


def check_tracking_uri(loaded: LoadedSettings, _: LaunchPlan, __: Mapping[str, str]) -> Item:
    """Does the public address answer, and does it take the token?"""
    uri = loaded.settings.client.tracking_uri
    if not uri:
        return Item("tracking-uri", Status.SKIPPED, "MLFLOW_TRACKING_URI is not set")
    if not uri.startswith(("http://", "https://")):
        return Item("tracking-uri", Status.SKIPPED, "MLFLOW_TRACKING_URI is no http(s) address")
    import requests

    shown = mask_uri(uri)

    token = loaded.settings.client.tracking_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get?experiment_id=0"
    try:
        answer = requests.get(address, headers=headers, timeout=2, allow_redirects=False)
    except requests.RequestException as err:
        raise UnavailableError(
            f"MLFLOW_TRACKING_URI: {shown} does not answer ({type(err).__name__})",
            hint="check the address and that the server runs",
        ) from None
    facts = {"status": answer.status_code}
    if answer.status_code == 200:
        return Item("tracking-uri", Status.OK, f"{shown} answers", facts=facts)
    if answer.status_code in (301, 302, 303, 307, 308, 401, 403):
        detail = f"{shown} asks to sign in ({answer.status_code})"
        fix = "renew MLFLOW_TRACKING_TOKEN: tokens end when a deployment restarts"
        return Item("tracking-uri", Status.FAILED, detail, fix, facts)
    detail = f"{shown} answers with status {answer.status_code}"
    return Item("tracking-uri", Status.FAILED, detail, "look at the server's log", facts)


def check_telemetry(_: LoadedSettings, __: LaunchPlan, environ: Mapping[str, str]) -> Item:
    """Telemetry is off in the server; is it in other programs of this environment?"""
    detail = "off in every process of the server"
    if not any(environ.get(name, "").lower() == "true" for name in TELEMETRY_OFF):
        detail += "; clients decide for themselves by MLFLOW_DISABLE_TELEMETRY"
    return Item("telemetry", Status.OK, detail)
