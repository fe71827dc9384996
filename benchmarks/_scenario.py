"""What is measured together, and how its values are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from _command import quit_with, tell
from _document import end_document, print_document
from _programs import Finished, VoidError
from _results import Measurement, Row, Sample, make_row
from _servers import ServerError
from _session import Recorder

STOCK = "stock"
Way = tuple[str, Callable[[], None]]


class Rounds(Protocol):
    """What a scenario has to know of what it is measured with."""

    recorder: Recorder
    round_number: int


B = TypeVar("B", bound=Rounds)


class Scenario(ABC, Generic[B]):
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
    def ways(self, bench: B) -> Sequence[Way]:
        """What is measured one after the other: who it is about, and how."""

    def run(self, bench: B) -> None:
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

    def keep(self, bench: B, key: str, contender: str, value: float, finished: Finished) -> None:
        """Keep one value, with the load average around its measurement."""
        unit = next(known.unit for known in self.measurements if known.key == key)
        load = finished.load_before, finished.load_after
        sample = Sample(self.engine, key, contender, bench.round_number, value, *load)
        bench.recorder.keep(sample, unit)


def choose(scenarios: Sequence[Scenario[B]], wanted: Sequence[str]) -> list[Scenario[B]]:
    """Those whose name is wanted, or begins with a wanted word; all when nothing is."""
    names = [scenario.name for scenario in scenarios]
    for word in wanted:
        if not any(is_named(name, word) for name in names):
            quit_with(f"--only {word}: no such row; there are {', '.join(names)}")
    return [
        scenario
        for scenario in scenarios
        if not wanted or any(is_named(scenario.name, word) for word in wanted)
    ]


def is_named(name: str, word: str) -> bool:
    return name == word or name.startswith(f"{word}-")


def rows_of(scenarios: Sequence[Scenario[B]], samples: Sequence[Sample]) -> list[Row]:
    """The table: each measurement of each scenario with its values."""
    return [
        make_row(
            scenario.engine,
            measurement,
            [sample for sample in samples if sample.key == measurement.key],
        )
        for scenario in scenarios
        for measurement in scenario.measurements
    ]


def print_results(
    document: dict[str, Any],
    scenarios: Sequence[Scenario[B]],
    recorder: Recorder,
    *,
    as_json: bool,
) -> int:
    """End a document with what was measured and print it; returns the exit status."""
    rows = rows_of(scenarios, recorder.samples)
    ended = end_document(document, rows, recorder.samples, recorder.failures, recorder.warnings)
    return print_document(ended, rows, as_json=as_json)
