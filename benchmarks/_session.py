"""One server under the whole load, and both in turn; collects samples, tells stderr about them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from _command import tell
from _load import SCENARIOS, ArtifactConnection, LoadError, Traffic
from _machine import load_average
from _results import MEASUREMENTS, Sample
from _servers import Contender, Server
from _stores import Stores

T = TypeVar("T")
ATTEMPTS = {"stock": 3, "ours": 1}
"""How often a load is tried. MLflow 3.17.2 now and then answers 500 to concurrent searches, while
it imports an optional module anew (handlers.py, search_runs_impl); ours has no such excuse."""
UNITS = {measurement.key: measurement.unit for measurement in MEASUREMENTS}


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        run_count: Runs in the seeded store.
        rounds: How often both servers get the whole load.
        starts: Starts and stops of each server at least, idle ones besides the rounds if needed.
        seconds: Length of each load with wrk.
        warm_up_seconds: Length of each warm-up load.
        calls: Timed `log_metric` calls.
        small_transfers: Timed uploads and downloads of 1 MB.
        large_transfers: Timed uploads and downloads of 50 MB.
    """

    run_count: int
    rounds: int
    starts: int
    seconds: int
    warm_up_seconds: int
    calls: int
    small_transfers: int
    large_transfers: int


@dataclass
class Recorder:
    """Collects samples and troubles of one benchmark and tells stderr about them."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, where: str, contender: str, work: Callable[[], T]) -> T | None:
        """Run `work`, for stock again when it gave a wrong answer; None when all was in vain.

        Args:
            where: For messages.
            contender: Its number of attempts is in `ATTEMPTS`.
            work: Raises `LoadError` for a wrong answer.
        """
        for attempts_left in reversed(range(ATTEMPTS[contender])):
            try:
                return work()
            except LoadError as error:
                trouble = f"{where}: {error}"
                (self.warnings if attempts_left else self.failures).append(trouble)
                tell(f"{'WARNING' if attempts_left else 'FAILED'} {trouble}")
        return None

    def measure(
        self, key: str, store: str, contender: str, round_number: int, work: Callable[[], float]
    ) -> None:
        """Keep the value that `work` gives, with the load average around it."""
        where = describe_place(store, round_number, contender, key)
        before = load_average()
        value = self.attempt(where, contender, work)
        after = load_average()
        if value is not None:
            sample = Sample(store, key, contender, round_number, value, before, after)
            self.keep(sample, UNITS[key])

    def keep(self, sample: Sample, unit: str) -> None:
        """Keep a value."""
        self.samples.append(sample)
        where = describe_place(sample.store, sample.round_number, sample.contender, sample.key)
        load = f"load {sample.load_before:.1f} -> {sample.load_after:.1f}"
        tell(f"{where} {sample.value:9.2f} {unit:6} {load}")


def describe_place(store: str, round_number: int, contender: str, key: str) -> str:
    """Which value something is about, for messages."""
    return f"{store} round {round_number} {contender:5} {key:15}"


@dataclass(frozen=True)
class Session:
    """One contender, one store engine, one round."""

    contender: Contender
    stores: Stores
    round_number: int
    folder: Path
    logs: Path | None
    recorder: Recorder

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Start the server on a fresh copy, record the start; the idle end is recorded after."""
        label = f"{self.contender.name}_{self.round_number}"
        log_file = self.logs / f"{self.stores.name}-{label}.log" if self.logs else None
        uri = self.stores.copy(label)
        try:
            with Server(self.contender, uri, self.folder / label, log_file) as server:
                self.measure("first_call", lambda: server.first_call_s)
                server.wait_until_idle()
                yield server
                server.wait_until_idle()
                self.measure("exit", server.terminate)
        finally:
            self.stores.drop(label)

    def measure(self, key: str, work: Callable[[], float]) -> None:
        self.recorder.measure(key, self.stores.name, self.contender.name, self.round_number, work)

    def start_and_stop(self) -> None:
        """Only the start and the end."""
        with self.running():
            pass

    def run(self, effort: Effort) -> None:
        """Start, warm up, put every load on the server, stop."""
        with self.running() as server:
            traffic = Traffic(server.port, self.stores.seeded, self._run_ids_file())
            self._prepare("check", traffic.check_answers)
            for scenario in SCENARIOS:
                self._warm_up(traffic, scenario, effort.warm_up_seconds)
            self.measure("log_metric_p50", lambda: traffic.log_metric_p50_ms(effort.calls))
            for scenario in SCENARIOS:
                self._measure_requests(traffic, scenario, effort.seconds)
            self.measure("pss", lambda: server.pss_bytes() / 2**20)
            self.measure("processes", lambda: float(len(server.processes())))
            self._measure_artifacts(server, 1, effort.small_transfers)
            self._measure_artifacts(server, 50, effort.large_transfers)

    def _prepare(self, what: str, work: Callable[[], None]) -> None:
        """Like `measure`, but what has to work here has no value."""
        where = f"{self.stores.name} round {self.round_number} {self.contender.name:5} {what}"
        self.recorder.attempt(where, self.contender.name, work)

    def _warm_up(self, traffic: Traffic, scenario: str, seconds: int) -> None:
        self._prepare("warm-up", lambda: traffic.warm_up(scenario, seconds))

    def _measure_requests(self, traffic: Traffic, scenario: str, seconds: int) -> None:
        self.measure(scenario, lambda: traffic.requests_per_second(scenario, seconds))

    def _measure_artifacts(self, server: Server, size_mb: int, repeats: int) -> None:
        os.sync()  # what was written before is not to be paid for here
        with ArtifactConnection(server.port) as connection:
            self.measure(f"put_{size_mb}mb", lambda: connection.put_mb_per_s(size_mb, repeats))
            self.measure(f"get_{size_mb}mb", lambda: connection.get_mb_per_s(size_mb, repeats))

    def _run_ids_file(self) -> Path:
        file = self.folder / "run_ids.txt"
        file.write_text("\n".join(self.stores.seeded.side_run_ids) + "\n")
        return file


def measure_store(
    stores: Stores,
    pair: tuple[Contender, Contender],
    effort: Effort,
    folder: Path,
    logs: Path | None,
    recorder: Recorder,
) -> None:
    """All rounds on one database engine; the server that begins changes with every round.

    Args:
        stores: Entered.
        pair: Stock and ours.
        effort: How much.
        folder: For files of this time only.
        logs: Folder that keeps what the servers write, one file per start.
        recorder: Gets the samples.
    """
    for number in range(1, max(effort.rounds, effort.starts) + 1):
        for contender in pair if number % 2 else reversed(pair):
            session = Session(contender, stores, number, folder, logs, recorder)
            if number <= effort.rounds:
                session.run(effort)
            else:
                session.start_and_stop()
