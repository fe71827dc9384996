"""What would go and what stays, counted by kind, experiment and reason. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What is collected."""

    RUN = "run"
    LOGGED_MODEL = "logged_model"
    TRACE = "trace"
    EXPERIMENT = "experiment"
    JOB = "job"
    MODEL_VERSION = "model_version"


class Reason(StrEnum):
    """Why something deleted stays."""

    YOUNGER = "younger"
    UNKNOWN_AGE = "unknown_age"
    REFERENCED = "referenced"
    HOLDS_ACTIVE = "holds_active_run"
    HOLDS_KEPT = "holds_kept"
    HOLDS_SCORER = "holds_scorer"
    SHARED = "shared"
    LAST_VERSION = "last_version"


REASONS = {
    Reason.YOUNGER: "deleted more recently than the TTL",
    Reason.UNKNOWN_AGE: "deleted at an unknown time",
    Reason.REFERENCED: "a live model version needs it",
    Reason.HOLDS_ACTIVE: "the experiment has an active run",
    Reason.HOLDS_KEPT: "the experiment holds something that stays",
    Reason.HOLDS_SCORER: "a guardrail uses one of the experiment's scorers",
    Reason.SHARED: "another entity has its files in the same folder",
    Reason.LAST_VERSION: "its number would be given to another version",
}
# Jobs and versions are in no experiment.
NO_EXPERIMENT = -1


@dataclass
class Plan:
    """The counts of one survey.

    Args:
        now_ms: The database's clock, milliseconds since the epoch.
        cut_ms: What was deleted at this time or before is old enough.
        going: Entities by kind and experiment.
        named: Those of them that were named one by one.
        staying: Deleted entities by kind, experiment and reason.
        experiments: The deleted experiments that go, ids in ascending order.
        names: Names of the experiments that occur.
        files: Files of what goes by kind and experiment, where that was measured.
        size_bytes: All of them together, likewise.
        clock_skew_s: The database's clock less this host's, seconds.
        shared: Ids of entities in whose folders others have their files.
    """

    now_ms: int
    cut_ms: int
    going: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    named: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    staying: Counter[tuple[Kind, int, Reason]] = field(default_factory=Counter)
    experiments: tuple[int, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    files: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    size_bytes: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    clock_skew_s: float = 0.0
    shared: frozenset[str] = frozenset()

    def count(
        self, kind: Kind, experiment: int, reason: Reason | None, *, is_named: bool = False
    ) -> None:
        """Count one entity: it stays for a reason, or goes without one."""
        if reason is not None:
            self.staying[kind, experiment, reason] += 1
            return
        self.going[kind, experiment] += 1
        self.named[kind, experiment] += is_named

    @property
    def is_empty(self) -> bool:
        """True when nothing would go."""
        return not self.going

    def total(self, kind: Kind) -> int:
        """How many of a kind would go."""
        return sum(count for (found, _), count in self.going.items() if found is kind)

    def kept(self, kind: Kind) -> dict[Reason, int]:
        """How many of a kind stay, by reason, always in the same order."""
        kept: Counter[Reason] = Counter()
        for (found, _, reason), count in self.staying.items():
            if found is kind:
                kept[reason] += count
        return {reason: kept[reason] for reason in Reason if kept[reason]}
