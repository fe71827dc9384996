"""Work the journal off in the background: files go while the next rows are being deleted."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.gc import journal
from mlflow_server.gc.journal import Entry
from mlflow_server.gc.plan import Kind

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE = 1_000
# Pages on their way at a time: rows must not run far ahead of files.
_AHEAD = 3
# Folders that MLflow makes in an experiment's for what is no run.
_BELOW_EXPERIMENT = ("models", "traces")

Settled = tuple[Entry, Freed | str]


class FileRemoval:
    """Removes what the journal names, one page after the other, in a thread of its own.

    Database work stays with the caller: pages are read and settled within its transactions.

    Args:
        removers: Remove the artifacts, wherever they are.
    """

    def __init__(self, removers: Removers) -> None:
        self._removers = removers
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gc-files")
        self._under_way: deque[tuple[list[Entry], Future[list[Freed | str]]]] = deque()
        self._after = 0
        self.seconds = 0.0

    def begin(self, connection: "Connection") -> bool:
        """Take the next pages of the journal, as far as there is room for them.

        Args:
            connection: To the store, after the commit that wrote them.

        Returns:
            True when there may be more.
        """
        while len(self._under_way) < _AHEAD:
            entries = journal.page(connection, self._after, _PAGE)
            if not entries:
                return False
            self._after = entries[-1].entry_id
            self._under_way.append((entries, self._pool.submit(self._remove, entries)))
        return True

    def finished(self, *, wait: bool) -> list[Settled]:
        """What has ended since the last call, in order: to be settled in the next transaction.

        Args:
            wait: For the oldest page, when there is one.
        """
        settled: list[Settled] = []
        while self._under_way and (wait or self._under_way[0][1].done()):
            entries, future = self._under_way.popleft()
            settled += zip(entries, future.result(), strict=True)
            wait = False
        return settled

    @property
    def is_busy(self) -> bool:
        """True while pages are on their way."""
        return bool(self._under_way)

    def close(self) -> None:
        """End the thread after what it is doing; what has not begun stays in the journal."""
        for _, future in self._under_way:
            future.cancel()
        self._pool.shutdown()
        self._removers.close()

    def _remove(self, entries: Sequence[Entry]) -> list[Freed | str]:
        started = time.monotonic()
        try:
            # A trace may be archived where it was: each place is removed once.
            places = dict.fromkeys(
                (entry.location, entry.entity_id)
                for entry in entries
                if entry.kind is not Kind.EXPERIMENT
            )
            found = dict(zip(places, self._removers.remove(list(places)), strict=True))
            for entry in entries:
                if entry.kind is Kind.EXPERIMENT:
                    self._removers.remove_empty(entry.location, entry.entity_id, _BELOW_EXPERIMENT)
            return [_take(found, entry) for entry in entries]
        finally:
            self.seconds += time.monotonic() - started


def _take(found: dict[tuple[str, str], Freed | str], entry: Entry) -> Freed | str:
    """The result of an entry; what was freed counts once."""
    place = (entry.location, entry.entity_id)
    result = found.get(place, Freed())
    if isinstance(result, Freed):
        found[place] = Freed()
    return result


def settle(connection: "Connection", results: Sequence[Settled]) -> None:
    """Take entries off the journal whose files are gone, and note what went wrong with others.

    Args:
        connection: In a transaction.
        results: Of `FileRemoval.finished`.
    """
    for entry, result in results:
        if isinstance(result, str):
            journal.note_failure(connection, entry, result)
    journal.forget(connection, [e for e, result in results if not isinstance(result, str)])
