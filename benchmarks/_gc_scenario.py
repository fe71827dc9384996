"""What is measured together, and how its values are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from _command import tell
from _gc_bench import Bench
from _gc_commands import Finished, VoidError
from _results import Measurement, Sample
from _servers import ServerError

STOCK = "stock"
Way = tuple[str, Callable[[], None]]


class Scenario(ABC):
    """Some rows of the table that are measured together.

    Attributes:
        name: For the command line.
        engine: Of the store.
        measurements: The rows.
    """

    def __init__(self, name: str, engine: str, measurements: Sequence[Measurement]) -> None:
        self.name = name
        self.engine = engine
        self.measurements = measurements

    @abstractmethod
    def ways(self, bench: Bench) -> Sequence[Way]:
        """What is measured one after the other: who it is about, and how."""

    def run(self, bench: Bench) -> None:
        """One round; who begins changes with every round."""
        ways = self.ways(bench)
        for who, measure in ways if bench.round_number % 2 else reversed(ways):
            tell(f"{self.name}: {who}")
            try:
                measure()
            except Exception as error:  # one that fails must not cost the others
                is_plain = isinstance(error, (VoidError, ServerError))
                reason = str(error) if is_plain else repr(error)
                trouble = f"{self.name} round {bench.round_number} {who}: {reason}"
                bench.recorder.failures.append(trouble)
                tell(f"FAILED {trouble}")

    def keep(
        self, bench: Bench, key: str, contender: str, value: float, finished: Finished
    ) -> None:
        """Keep one value, with the load average around its measurement."""
        unit = next(known.unit for known in self.measurements if known.key == key)
        load = finished.load_before, finished.load_after
        sample = Sample(self.engine, key, contender, bench.round_number, value, *load)
        bench.recorder.keep(sample, unit)
