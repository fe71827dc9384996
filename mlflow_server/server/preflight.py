"""Look before MLflow is imported: is the port free, the store usable, the destination writable?

Each check takes 5 s at most and they run side by side. Nothing is created or changed.
"""

import contextlib
import errno
import functools
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.artifacts.probe import PROBE_TIMEOUT_S, needs_mlflow, probe, require_library
from mlflow_server.deadline import DeadlineExceededError, start_within
from mlflow_server.errors import (
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.server.plan import LaunchPlan
from mlflow_server.store.engine import (
    CONNECT_TIMEOUT_S,
    connect,
    explain_failure,
    open_sqlite,
    require_driver,
    sqlite_path,
)
from mlflow_server.store.limits import free_connections
from mlflow_server.store.revision import (
    SchemaState,
    SchemaStatus,
    read_store_status,
    require_usable,
)
from mlflow_server.uris import Dialect, StoreUri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preflight:
    """What the checks found, all of it good.

    Args:
        listener: Bound to the plan's address with TCP_NODELAY, not listening yet: clients are
            refused until the workers are there.
        store: Schema of the backend store: current or empty.
        empty: Stores that must be initialised first.
        warnings: What the operator should know.
    """

    listener: socket.socket
    store: SchemaStatus
    empty: tuple[StoreUri, ...]
    warnings: tuple[str, ...]


def check_all(plan: LaunchPlan, environ: Mapping[str, str]) -> Preflight:
    """Run every check and report the first that failed, in the order store, destination, port.

    Args:
        plan: The launch.
        environ: Where the object store's credentials are.

    Raises:
        OpsError: A check failed; everything is as before.
    """
    for uri in plan.stores:
        require_driver(uri)
    require_library(plan.destination)
    listener = bind(plan.host, plan.port)
    try:
        started = [
            (uri, start_within(CONNECT_TIMEOUT_S + 0.5, functools.partial(check_store, uri)))
            for uri in plan.stores
        ]
        destination = None
        if not needs_mlflow(plan.destination):
            destination = start_within(
                PROBE_TIMEOUT_S + 0.5,
                lambda: probe(plan.destination, environ, timeout_s=PROBE_TIMEOUT_S),
            )
        statuses = {}
        failures: list[Exception] = []
        for uri, wait in started:
            try:
                statuses[uri.text] = wait()
            except DeadlineExceededError as err:
                failures.append(explain_failure(uri, err) or err)
            except Exception as err:
                failures.append(err)
        # Also after a failure: ending now would leave the probe object behind.
        if destination is not None:
            try:
                destination()
            except Exception as err:
                failures.append(err)
        if failures:
            raise failures[0]
        warnings = _pool_warnings(plan)
    except BaseException:
        listener.close()
        raise
    empty = tuple(u for u in plan.stores if statuses[u.text].state is SchemaState.EMPTY)
    return Preflight(listener, statuses[plan.store.text], empty, warnings)


def check_store(uri: StoreUri) -> SchemaStatus:
    """Is a store reachable, at head or empty, and writable?

    Raises:
        OpsError: It is not.
    """
    if uri.is_sqlite:
        with _explaining_permission(uri):
            _check_sqlite_kind(uri)
    status = read_store_status(uri)
    require_usable(status, uri)
    if uri.is_sqlite:
        _check_sqlite_place(uri)
    if uri.is_sqlite and status.state is SchemaState.CURRENT:
        _check_sqlite_writable(uri)
    if uri.dialect is Dialect.POSTGRESQL and status.state is SchemaState.EMPTY:
        import sqlalchemy

        with connect(uri) as connection:
            query = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            if not connection.execute(sqlalchemy.text(query)).scalar_one():
                raise PermissionDeniedError(
                    f"{uri.shown}: the user may not create tables in this empty database",
                    hint="GRANT CREATE ON SCHEMA public TO its user, or make it the owner",
                )
    return status


@contextlib.contextmanager
def _explaining_permission(uri: StoreUri) -> Iterator[None]:
    try:
        yield
    except PermissionError as err:
        raise PermissionDeniedError(
            f"{uri.shown}: {err.filename} may not be entered",
            hint=f"the user of the server (uid {os.geteuid()}) needs permission there",
        ) from None


def _nearest_folder(path: Path) -> Path:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return folder


def _check_sqlite_kind(uri: StoreUri) -> None:
    path = sqlite_path(uri)
    if path.is_dir():
        raise SettingsError(
            [f"{uri.setting}: {uri.shown} is a folder, not a file"],
            hint=f"name a file in {uri.setting}",
        )
    folder = _nearest_folder(path)
    if not folder.is_dir():
        raise SettingsError(
            [f"{uri.setting}: {folder} is a file, not a folder"],
            hint=f"name another place in {uri.setting}",
        )


def _check_sqlite_place(uri: StoreUri) -> None:
    folder = _nearest_folder(sqlite_path(uri))
    read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    if read_only or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionDeniedError(
            f"{uri.shown}: the folder {folder} is not writable",
            hint="SQLite needs to write its journal beside the file",
        )


def _check_sqlite_writable(uri: StoreUri) -> None:
    """Take and give back the write lock, which changes no byte of the file."""
    path = sqlite_path(uri)
    try:
        with path.open("r+b"):
            pass
    except OSError as err:
        raise PermissionDeniedError(
            f"{uri.shown}: the SQLite file is not writable ({err.strerror})",
            hint=f"the user of the server (uid {os.geteuid()}) needs write permission",
        ) from None
    try:
        connection = open_sqlite(uri, timeout_s=3)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as err:
        raise explain_failure(uri, err) or err from None


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to the address, with TCP_NODELAY for every connection it will accept.

    Without TCP_NODELAY an answer of two writes waits 40 ms for the client's delayed ACK.

    Raises:
        UnavailableError: The port is taken, or the address is not of this machine.
        PermissionDeniedError: The port needs more rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise UnavailableError(
            f"--host: {host} is no address of this machine", hint="use 127.0.0.1 or 0.0.0.0"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        _refuse_if_listening(listener, host, port)
    except OSError as err:
        listener.close()
        raise explain_bind(err, host, port) from None
    except BaseException:
        listener.close()
        raise
    return listener


def _refuse_if_listening(listener: socket.socket, host: str, port: int) -> None:
    """Linux lets two sockets bind when neither listens; asking to listen is what tells."""
    trial = socket.socket(listener.family, socket.SOCK_STREAM)
    try:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(listener.getsockname())
        trial.listen(1)
    finally:
        trial.close()


def explain_bind(err: OSError, host: str, port: int) -> OpsError:
    """What a failure to bind or listen means."""
    match err.errno:
        case errno.EADDRINUSE:
            return UnavailableError(
                f"port {port} of {host} is in use by another program",
                hint=f"choose another with --port, or find it: ss -ltnp 'sport = :{port}'",
            )
        case errno.EADDRNOTAVAIL:
            return UnavailableError(
                f"--host: {host} is no address of this machine", hint="use 127.0.0.1 or 0.0.0.0"
            )
        case errno.EACCES:
            return PermissionDeniedError(
                f"port {port} needs more rights", hint="choose a port above 1023"
            )
        case _:
            return UnavailableError(f"cannot listen on {host} port {port}: {err.strerror}")


def _pool_warnings(plan: LaunchPlan) -> tuple[str, ...]:
    if plan.store.dialect not in (Dialect.POSTGRESQL, Dialect.MYSQL):
        return ()
    with connect(plan.store) as connection:
        limit = free_connections(connection)
    if limit is None or plan.max_connections <= limit:
        return ()
    return (
        f"{plan.workers} workers may open {plan.max_connections} connections, the database allows "
        f"{limit}: lower MLFLOW_SQLALCHEMYSTORE_POOL_SIZE or --workers, or raise max_connections",
    )
