"""`/livez` and `/readyz`: what they look at, how often, and that they answer in time."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlflow_server.server.health import Readiness, livez, state_file_in
from tests.unit.asgi import Answer, drive, drive_async, http_scope
from tests.unit.making import plan_for
from tests.unit.making_stores import make_store


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Place:
    """A store at head, an artifact folder, and the folder that workers share."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.store = folder / "store/my.db"
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()
        self.runtime = folder / "runtime"
        self.runtime.mkdir()
        self._folder = folder
        self._clock = clock
        make_store(self.store)

    def readiness(self, **environ: str) -> Readiness:
        """One worker's view."""
        plan = plan_for(
            self._folder,
            environ={
                "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.store}",
                "MLFLOW_ARTIFACTS_DESTINATION": str(self.artifacts),
                **environ,
            },
        )
        return Readiness(plan, state_file_in(self.runtime), self._clock)

    def break_artifacts(self) -> None:
        """Put a file where the folder was."""
        self.artifacts.rmdir()
        self.artifacts.write_text("a file", "utf-8")

    def repair_artifacts(self) -> None:
        """Undo `break_artifacts`."""
        self.artifacts.unlink()
        self.artifacts.mkdir()


@pytest.fixture
def place(tmp_path: Path, clock: Clock) -> Place:
    return Place(tmp_path, clock)


def checks_of(answer: Answer) -> dict[str, str]:
    document = json.loads(answer.body)
    assert document["status"] == ("ok" if answer.status == 200 else "failed")
    return {check["name"]: check["status"] for check in document["checks"]}


def ask(readiness: Readiness) -> Answer:
    return drive(readiness, http_scope("/readyz"))


ALL_OK = {"database": "ok", "schema": "ok", "artifacts": "ok"}


def test_alive_as_long_as_it_answers() -> None:
    answer = drive(livez, http_scope("/livez"))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
    assert answer.header("cache-control") == "no-store"


def test_ready_when_every_check_passes(place: Place) -> None:
    answer = ask(place.readiness())
    assert (answer.status, checks_of(answer)) == (200, ALL_OK)
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))


def test_looking_leaves_nothing_behind(place: Place) -> None:
    before = place.store.read_bytes()
    ask(place.readiness())
    assert place.store.read_bytes() == before
    assert [path.name for path in place.store.parent.iterdir()] == ["my.db"]
    assert list(place.artifacts.iterdir()) == []


def test_a_removed_store_file_is_not_ready(place: Place, clock: Clock) -> None:
    readiness = place.readiness()
    assert ask(readiness).status == 200
    place.store.unlink()
    clock.now += 3
    answer = ask(readiness)
    assert answer.status == 503
    assert checks_of(answer) == {"database": "failed", "artifacts": "ok"}
    assert not place.store.exists()


def test_ready_again_as_soon_as_the_store_is_back(place: Place) -> None:
    readiness = place.readiness()
    content = place.store.read_bytes()
    place.store.unlink()
    assert ask(readiness).status == 503
    place.store.write_bytes(content)
    assert ask(readiness).status == 200


@pytest.mark.parametrize("revisions", [[], ["0123456789ab"], ["a", "b"]])
def test_another_schema_is_not_ready(place: Place, revisions: list[str]) -> None:
    place.store.unlink()
    make_store(place.store, revisions=revisions)
    answer = ask(place.readiness())
    assert answer.status == 503
    assert checks_of(answer) == {"database": "ok", "schema": "failed", "artifacts": "ok"}


def test_a_store_without_tables_is_not_ready(place: Place) -> None:
    place.store.unlink()
    sqlite3.connect(place.store).close()
    assert ask(place.readiness()).status == 503


def test_the_database_is_asked_at_most_every_two_seconds(place: Place, clock: Clock) -> None:
    readiness = place.readiness()
    assert ask(readiness).status == 200
    place.store.unlink()
    clock.now += 1.9
    assert ask(readiness).status == 200
    clock.now += 0.2
    assert ask(readiness).status == 503


def test_says_which_check_failed_and_nothing_that_strangers_should_not_know(
    place: Place, tmp_path: Path
) -> None:
    place.store.unlink()
    place.break_artifacts()
    answer = ask(place.readiness())
    assert checks_of(answer) == {"database": "failed", "artifacts": "failed"}
    assert str(tmp_path).encode() not in answer.body


# Artifact probes


def test_workers_probe_the_destination_together_at_most_every_thirty_seconds(
    place: Place, clock: Clock
) -> None:
    first, second = place.readiness(), place.readiness()
    assert checks_of(ask(first))["artifacts"] == "ok"
    place.break_artifacts()
    clock.now += 29.9
    assert checks_of(ask(second))["artifacts"] == "ok"  # nobody has looked again
    assert checks_of(ask(first))["artifacts"] == "ok"
    clock.now += 0.2
    assert checks_of(ask(second))["artifacts"] == "failed"
    place.repair_artifacts()
    clock.now += 29.9
    assert checks_of(ask(first))["artifacts"] == "failed"
    clock.now += 0.2
    assert checks_of(ask(first))["artifacts"] == "ok"


def test_a_state_that_cannot_be_read_means_a_new_probe(place: Place) -> None:
    for content in ("", "[12", "no json", "[0", "\0\0"):
        state_file_in(place.runtime).write_text(content, "utf-8")
        assert ask(place.readiness()).status == 200


def test_a_state_of_another_shape_means_a_new_probe(place: Place) -> None:
    for content in ("5", "[1]", '["x", ""]', "{}", "null"):
        state_file_in(place.runtime).write_text(content, "utf-8")
        assert ask(place.readiness()).status == 200


def test_a_clock_that_was_set_back_does_not_stop_the_checks(place: Place, clock: Clock) -> None:
    """Else a server whose clock was an hour fast would say for an hour what it saw last."""
    readiness = place.readiness()
    assert ask(readiness).status == 200
    place.store.unlink()
    place.break_artifacts()
    clock.now -= 3_600
    assert checks_of(ask(readiness)) == {"database": "failed", "artifacts": "failed"}


def test_a_runtime_folder_that_was_cleaned_away_does_not_make_it_fail(place: Place) -> None:
    """Temporary folders are cleaned by age on many machines."""
    readiness = place.readiness()
    place.runtime.rmdir()
    assert ask(readiness).status == 200


# Hanging


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                try:
                    connections.append(listener.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_database_that_hangs_is_told_after_two_seconds(place: Place, driver: str) -> None:
    """The driver itself would wait 5 s: the answer shows which of the two limits ended it."""
    answers = []

    async def run() -> None:
        with silent_server() as port:
            uri = f"postgresql+{driver}://u:p@127.0.0.1:{port}/db"
            readiness = place.readiness(MLFLOW_BACKEND_STORE_URI=uri)
            answers.append(await drive_async(readiness, http_scope()))
        # The server is gone now, so the thread that still waits for it ends.

    asyncio.run(run())
    (answer,) = answers
    assert answer.status == 503
    database = json.loads(answer.body)["checks"][0]
    assert database == {"name": "database", "status": "failed", "detail": "no answer within 2 s"}


def test_many_requests_at_once_share_one_look(place: Place) -> None:
    with silent_server() as port:
        uri = f"postgresql+psycopg://u:p@127.0.0.1:{port}/db"
        readiness = place.readiness(MLFLOW_BACKEND_STORE_URI=uri)
        threads: list[int] = []

        async def run() -> None:
            requests = [asyncio.create_task(readiness.check()) for _ in range(20)]
            await asyncio.sleep(0.5)
            names = [thread.name for thread in threading.enumerate()]
            threads.append(sum(name.startswith("asyncio") for name in names))
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

        runner = threading.Thread(target=asyncio.run, args=(run(),))
        runner.start()
        while not threads:
            runner.join(0.05)
    runner.join()
    assert threads[0] <= 2  # one looks at the database, one at the artifacts
