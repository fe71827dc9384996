"""`upgrade --undo`: back to the backup of the last upgrade."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow_server.errors import OpsError, SchemaError, UnavailableError, UsageError
from mlflow_server.store.engine import connect, explained
from mlflow_server.store.lock import exclusive
from mlflow_server.store.revision import SchemaState, SchemaStatus, pending_after, read_status
from mlflow_server.upgrade.archive import count_written_archive, require_archive
from mlflow_server.upgrade.keeping import Kept, Record, digest_of, last_record, read_mark
from mlflow_server.upgrade.mysql import finish_interrupted, undo_mysql
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
            record, status = _read(uri)
            if record is None:
                continue
            if status.state is SchemaState.HALF_WAY:
                found.append(Undoable(name, uri, record))
            else:
                found.append(self._look(name, uri, record, status))
        if not found:
            raise UsageError("no upgrade is noted in the store: there is nothing to undo")
        return found

    def _look(self, name: str, uri: StoreUri, record: Record, status: SchemaStatus) -> Undoable:
        self._require_undoable(uri, record, status)
        return Undoable(name, uri, record, self._count_written(uri, record, status.head))

    def _require_undoable(self, uri: StoreUri, record: Record, status: SchemaStatus) -> None:
        if status.current != record.after:
            raise SchemaError(
                f"{uri.shown}: is at revision {status.current}; the last upgrade that is noted "
                f"went to {record.after}",
                hint="use the release that upgraded it last",
            )
        require_backup(record.kept)

    def _count_written(self, uri: StoreUri, record: Record, head: str) -> dict[str, int]:
        if uri.dialect is Dialect.SQLITE:
            return count_written_sqlite(uri, record, _as_it_was(uri, record, head))
        if uri.dialect is Dialect.MYSQL:
            return count_written_archive(uri, record)
        with connect(uri, application_name=session_name()) as connection:
            return count_written_postgresql(connection, record)

    def run(self, agree: Callable[[Sequence[Undoable]], None]) -> list[Undoable]:
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
                record, status = _read(uri)
                if status.state is SchemaState.HALF_WAY:
                    done.append(Undoable(name, uri, finish_interrupted(uri)))
                elif record is not None:
                    self._require_undoable(uri, record, status)
                    done.append(self._undo(Undoable(name, uri, record), status.head, agree))
        return done

    def _undo(
        self, found: Undoable, head: str, agree: Callable[[Sequence[Undoable]], None]
    ) -> Undoable:
        """Undo one, after asking once more: somebody may have written meanwhile."""
        uri, record = found.uri, found.record

        def ask(written: dict[str, int]) -> None:
            nonlocal found
            found = replace(found, written=written)
            agree([found])

        if uri.dialect is Dialect.SQLITE:
            undo_sqlite(uri, record, _as_it_was(uri, record, head), ask)
            return found
        ask(self._count_written(uri, record, head))
        if uri.dialect is Dialect.MYSQL:
            undo_mysql(uri, record)
        else:
            undo_postgresql(uri, record, found.written)
        return found


def _read(uri: StoreUri) -> tuple[Record | None, SchemaStatus]:
    with connect(uri, application_name=session_name()) as connection:
        status = read_status(connection)
        is_half_way = status.state is SchemaState.HALF_WAY
        return (read_mark if is_half_way else last_record)(connection), status


def _as_it_was(uri: StoreUri, record: Record, head: str) -> Surveyed:
    """What the backup of an upgrade has to go through."""
    status = SchemaStatus(SchemaState.CURRENT, None, head)
    if record.before is not None:
        pending = pending_after(record.before) or ()
        status = SchemaStatus(SchemaState.BEHIND, record.before, head, pending)
    plan = Plan(status, (), 0.0, record.kept.size_bytes, 0)
    return Surveyed(uri, plan, record.auth_before, auth_pending(record.auth_before))


def require_backup(kept: Kept) -> None:
    """Raise unless the backup of an upgrade is there and as it was written.

    Raises:
        UnavailableError: It is not there.
        OpsError: It is another one.
    """
    path = Path(kept.path)
    if not path.exists():
        raise UnavailableError(f"{path}: the backup of the last upgrade is not there any more")
    if kept.kind == "archive":
        require_archive(kept)
    elif digest_of(path) != kept.sha256:
        raise OpsError(f"{path}: the backup of the last upgrade was changed: another checksum")
