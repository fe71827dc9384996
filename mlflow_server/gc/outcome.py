"""What a collection has done."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.gc.journal import Entry
from mlflow_server.gc.plan import Kind, Plan


class Progress(Protocol):
    """Told now and then how far a collection is."""

    def __call__(self, total: int, entities: int, locations: int) -> None:
        """Show it.

        Args:
            total: Entities that are planned to go.
            entities: Whose rows are gone.
            locations: Whose files are gone.
        """


@dataclass
class Outcome:
    """What was done.

    Args:
        plan: What was planned.
        purged: Entities whose rows are gone, by kind.
        freed: Files that are gone.
        locations: Whose files are gone.
        failures: Locations that could not be removed, and why.
        seconds: By phase; files go while further rows do.
        waiting: Locations in the journal that a later run has to remove.
        stopped_by: The option that ended it early.
    """

    plan: Plan
    purged: Counter[Kind] = field(default_factory=Counter)
    freed: Freed = field(default_factory=Freed)
    locations: int = 0
    failures: list[tuple[Entry, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    waiting: int = 0
    stopped_by: str | None = None
