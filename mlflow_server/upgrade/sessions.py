"""Who else is on a store."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.errors import BusyError
from mlflow_server.store.engine import connect, sqlite_path
from mlflow_server.store.lock import mysql_mark
from mlflow_server.uris import StoreUri

_POSTGRESQL = """
SELECT pid, application_name, usename, coalesce(client_addr::text, 'this host'), state
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY backend_start
"""
_MYSQL = f"""
SELECT id, user, host, command FROM information_schema.processlist
WHERE db = DATABASE() AND id <> CONNECTION_ID() AND IS_USED_LOCK({mysql_mark("id")}) IS NULL
ORDER BY id
"""  # noqa: S608 - no value of anybody's
# Who only looks at a store is there for no longer.
LOOKS_S = 3.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Session:
    """A connection to the store, or a process that has its file open.

    Args:
        id: Of the backend, the connection or the process.
        program: What it calls itself.
        whence: User and host; empty for a process of this host.
        state: What it does, where the database says so.
    """

    id: int
    program: str
    whence: str = ""
    state: str = ""

    def __str__(self) -> str:
        parts = (f"{self.program or 'a program'} ({self.id}", self.whence, f"{self.state}")
        return ", ".join(filter(None, parts)) + ")"


OURS = "mlflow-tracking-server upgrade"
"""How sessions of this command begin: those of others wait for the lock, and for nothing else."""


def session_name() -> str:
    """What the sessions of this process are called."""
    return f"{OURS} {socket.gethostname()}:{os.getpid()}"[:63]


def postgresql_sessions(uri: StoreUri) -> list[Session]:
    """Sessions on a database of PostgreSQL but those of this command."""
    # Connected anew: in one transaction the server says the same each time.
    with connect(uri, application_name=session_name()) as connection:
        return [
            Session(int(id_), str(program), f"{user} from {host}", str(state or ""))
            for id_, program, user, host, state in connection.exec_driver_sql(_POSTGRESQL)
            if not str(program).startswith(OURS)
        ]


def mysql_sessions(uri: StoreUri) -> list[Session]:
    """Sessions on a database of MySQL but those of our own operations, as far as the user may see.

    Those of other users are shown to who has the privilege PROCESS.
    """
    with connect(uri) as connection:
        found = connection.exec_driver_sql(_MYSQL)
        return [Session(int(i), "", f"{user} from {host}", str(c)) for i, user, host, c in found]


def require_alone(
    uri: StoreUri, look: Callable[[StoreUri], Sequence[Session]], hint: str = ""
) -> None:
    """Raise when somebody else is on a store, and not for a moment only.

    Args:
        uri: The store.
        look: Who else is on it now.
        hint: What else can be done.

    Raises:
        BusyError: Says who.
    """
    deadline = time.monotonic() + LOOKS_S
    while found := look(uri):
        if time.monotonic() > deadline:
            raise BusyError(
                f"{uri.shown}: is in use by {', '.join(map(str, found))}",
                hint=f"stop servers and other programs that use the store, then try again{hint}",
            )
        time.sleep(_POLL_S)


def processes_with(uri: StoreUri) -> list[Session]:
    """Other processes that have the file of a SQLite store open, as far as this user may see them.

    Empty where there is no /proc.
    """
    path = sqlite_path(uri)
    wanted = {str(path), *(f"{path}{suffix}" for suffix in ("-wal", "-shm", "-journal"))}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            links = (process / "fd").iterdir()
            if any(_target(link) in wanted for link in links):
                program = (process / "comm").read_text("utf-8", "replace").strip()
                found.append(Session(int(process.name), program, "process of this host"))
    return found


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):
        return str(link.readlink())
    return ""
