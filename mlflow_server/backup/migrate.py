"""`migrate`: from the configured store straight into another one."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from mlflow_server.backup.copying import Copied, Copying
from mlflow_server.backup.fill import Content, Filled, filled
from mlflow_server.backup.locations import Moves, as_location
from mlflow_server.backup.naming import note_all
from mlflow_server.backup.notes import Notes
from mlflow_server.backup.places import Places
from mlflow_server.backup.scratch import scratch_failures
from mlflow_server.backup.targets import Arrival, locked, require_different, require_empty_stores
from mlflow_server.backup.transfer import Progress
from mlflow_server.store.lock import exclusive
from mlflow_server.store.snapshot import snapshot
from mlflow_server.uris import ArtifactUri, StoreUri


@dataclass(frozen=True)
class Request:
    """What moves, and where to.

    Args:
        source: The store; only read.
        target: An empty one.
        source_destination: Where its artifacts are.
        target_destination: Where they go; None when they stay.
        looks_ahead: List artifacts once before, so that somebody who watches sees when it ends.
    """

    source: StoreUri
    target: StoreUri
    source_destination: ArtifactUri
    target_destination: ArtifactUri | None = None
    looks_ahead: bool = False


@dataclass
class Migrated:
    """What was moved, or would be.

    Args:
        revision: Of the source's schema.
        database: What was put into the target.
        rows: Of the source, by table: for a plan.
        size_bytes: About what the source takes: for a plan.
        moves: From where to where locations were rewritten.
        copied: Artifacts; None when they stay.
        is_resumed: The same had been interrupted.
    """

    revision: str | None = None
    database: Filled | None = None
    rows: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    moves: list[tuple[str, str]] = field(default_factory=list)
    copied: Copied | None = None
    is_resumed: bool = False


class Migration:
    """One move.

    Args:
        request: Of what, and where to.
        environ: Where credentials of object stores are.
        progress: Told how far it is.
    """

    def __init__(self, request: Request, environ: Mapping[str, str], progress: Progress) -> None:
        self._request = request
        self._environ = environ
        self._progress = progress
        self._total_bytes: int | None = None

    def survey(self) -> Migrated:
        """What would be moved, when nothing is in the way.

        Raises:
            OpsError: Something is.
        """
        with scratch_failures(), ExitStack() as stack:
            result, copying, _ = self._begin(stack)
            with snapshot(self._request.source) as shot:
                result.revision = shot.revision
                result.rows = {table.name: shot.count(table) for table in shot.tables}
                result.size_bytes = shot.size_bytes()
                if copying is not None:
                    note_all(self._notes, shot)
            if copying is not None:
                result.copied = copying.survey()
        return result

    def run(self) -> Migrated:
        """Move it.

        Artifacts are copied before the rows are read, and once more what was written meanwhile, so
        that whatever a row names is there when the rows appear.

        Raises:
            OpsError: The target is not empty, or something cannot be reached or written.
        """
        request = self._request
        with scratch_failures(), ExitStack() as stack:
            result, copying, arrival = self._begin(stack)
            stack.enter_context(exclusive(request.source, "migrate"))
            stack.enter_context(locked(request.target, "migrate"))
            # Once more: somebody may have come before.
            filled_before = self._require_target(arrival)
            if filled_before is not None and arrival is not None:
                result.is_resumed = True
                result.database = Filled(filled_before, {})
                arrival.end()
                return result
            if copying is not None and arrival is not None:
                result.is_resumed = arrival.is_resumed()
                arrival.begin()
                with snapshot(request.source) as shot:
                    note_all(self._notes, shot)
                if request.looks_ahead:
                    self._total_bytes = copying.survey().size_bytes
                copying.run()
            self._move_rows(result, copying, arrival)
            if arrival is not None:
                arrival.end()
        return result

    def _begin(self, stack: ExitStack) -> tuple[Migrated, Copying | None, Arrival | None]:
        request = self._request
        require_different(request.source, request.target)
        result = Migrated()
        if request.target_destination is None:
            self._require_target(None)
            return result, None, None
        source = stack.enter_context(closing(Places(request.source_destination, self._environ)))
        target = stack.enter_context(closing(Places(request.target_destination, self._environ)))
        if source.root == target.root:
            self._require_target(None)
            return result, None, None
        result.moves = [(as_location(source.root), as_location(target.root))]
        self._notes = stack.enter_context(closing(Notes(source.root)))
        files, _ = target.find(target.root)
        arrival = Arrival(files, request.target_destination.shown, f"migrate {source.root}")
        self._require_target(arrival)
        copying = Copying(
            self._notes,
            source,
            target,
            Moves(result.moves),
            lambda done: self._progress("artifacts", done, self._total_bytes),
            is_resumed=arrival.is_resumed(),
        )
        return result, copying, arrival

    def _require_target(self, arrival: Arrival | None) -> dict[str, int] | None:
        """Raise unless the target is empty or this has filled it before; then, with which rows."""
        stores = {"backend": self._request.target}
        filled_before = arrival.filled(stores) if arrival is not None else {}
        if not filled_before:
            require_empty_stores(stores)
        if arrival is not None and not arrival.is_resumed():
            arrival.require_empty()
        return filled_before.get("backend")

    def _move_rows(
        self, result: Migrated, copying: Copying | None, arrival: Arrival | None
    ) -> None:
        done = 0

        with snapshot(self._request.source) as shot:
            total = sum(map(shot.count, shot.tables))

            def tell(rows: int) -> None:
                nonlocal done
                done += rows
                self._progress("tables", done, total)

            result.revision = shot.revision
            content = Content(shot.revision, shot.tables, shot.rows, shot.auth_revision)
            moves = Moves(result.moves)
            with filled(self._request.target, content, moves, tell, replace=False) as database:
                result.database = database
                if copying is not None and arrival is not None:
                    note_all(self._notes, shot)
                    result.copied = copying.run()
                    arrival.settle()
                    arrival.note_rows({"backend": database.rows})
