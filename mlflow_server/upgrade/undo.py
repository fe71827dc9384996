"""`upgrade --undo`: back to the backup of the last upgrade."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_server.errors import OpsError, SchemaError, UnavailableError, UsageError
from mlflow_server.store.engine import connect, explained
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import SchemaState, SchemaStatus, pending_after, read_status
from mlflow_server.upgrade.keeping import Record, digest_of, last_record
from mlflow_server.upgrade.plan import Plan
from mlflow_server.upgrade.postgresql import count_written_postgresql, undo_postgresql
from mlflow_server.upgrade.request import Request
from mlflow_server.upgrade.sessions import session_name
from mlflow_server.upgrade.sqlite import count_written_sqlite, undo_sqlite
from mlflow_server.upgrade.survey import Surveyed, auth_pending
from mlflow_server.uris import Dialect, StoreUri


@dataclass(frozen=True)
class Undoable:
    """An upgrade that can be undone.

    Args:
        name: What the database is.
        uri: Which.
        record: Of the upgrade.
        written: Rows that were written or removed since, by table.
    """

    name: str
    uri: StoreUri
    record: Record
    written: dict[str, int] = field(default_factory=dict)


class Undo:
    """Undoes the last upgrade of a server's databases.

    Args:
        request: Which they are.
    """

    def __init__(self, request: Request) -> None:
        self._request = request

    def look(self) -> list[Undoable]:
        """What there is to undo.

        Raises:
            UsageError: No upgrade is noted.
            OpsError: It cannot be undone.
        """
        found = []
        for name, uri in self._request.databases.items():
            with connect(uri, application_name=session_name()) as connection:
                record, status = last_record(connection), read_status(connection)
            if record is not None:
                found.append(self._look(name, uri, record, status))
        if not found:
            raise UsageError("no upgrade is noted in the store: there is nothing to undo")
        return found

    def _look(self, name: str, uri: StoreUri, record: Record, status: SchemaStatus) -> Undoable:
        if status.current != record.after:
            raise SchemaError(
                f"{uri.shown}: is at revision {status.current}; the last upgrade that is noted "
                f"went to {record.after}",
                hint="use the release that upgraded it last",
            )
        require_backup(record)
        if uri.dialect is Dialect.SQLITE:
            before, state, pending = record.before, SchemaState.CURRENT, tuple[str, ...]()
            if before is not None:
                state, pending = SchemaState.BEHIND, pending_after(before) or ()
            was = SchemaStatus(state, before, status.head, pending)
            revision = record.auth_before
            surveyed = Surveyed(
                uri, Plan(was, (), 0.0, record.kept.size_bytes, 0), revision, auth_pending(revision)
            )
            return Undoable(name, uri, record, count_written_sqlite(uri, record, surveyed))
        with connect(uri, application_name=session_name()) as connection:
            return Undoable(name, uri, record, count_written_postgresql(connection, record))

    def run(self, agree: Callable[[list[Undoable]], None]) -> list[Undoable]:
        """Undo it.

        Args:
            agree: Asked with what would be lost; raises when that is not wanted.

        Raises:
            BusyError: Another operation works on a store, or somebody is connected.
            OpsError: It failed; the store is as it was.
        """
        agree(self.look())
        done = []
        for name, uri in self._request.databases.items():
            with exclusive(uri, "upgrade"), explained(uri):
                with connect(uri, application_name=session_name()) as connection:
                    record, status = last_record(connection), read_status(connection)
                if record is None:
                    continue
                found = self._look(name, uri, record, status)
                agree([found])  # once more: somebody may have written meanwhile
                if uri.dialect is Dialect.SQLITE:
                    undo_sqlite(uri, record)
                else:
                    undo_postgresql(uri, record)
                done.append(found)
        return done


def require_backup(record: Record) -> None:
    """Raise unless the backup of an upgrade is there and as it was written.

    Raises:
        UnavailableError: It is not there.
        OpsError: It is another one.
    """
    kept = record.kept
    path = Path(kept.path)
    if kept.kind == "archive":
        raise OpsError(
            f"the backup of the last upgrade is an archive: {path}",
            hint=f"stop the servers, then: mlflow-server restore {path} --replace, with the "
            "release that the store had before",
        )
    if not path.is_file():
        raise UnavailableError(f"{path}: the backup of the last upgrade is not there any more")
    if digest_of(path) != kept.sha256:
        raise OpsError(f"{path}: the backup of the last upgrade was changed: another checksum")
