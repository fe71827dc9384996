"""What is GCS's own: answers for single objects of a batch, and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from mlflow_server.artifacts.buckets import deleting
from mlflow_server.artifacts.buckets import gcs as google
from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import SettingsError
from tests.standins.forwarder import Answers, Forwarder, Reply, Request, forwarder
from tests.support.gcs import GcsServer
from tests.support.shelves import Shelf, gcs_shelf

pytestmark = pytest.mark.xdist_group("gcs")


@pytest.fixture
def between(gcs: GcsServer) -> Iterator[Forwarder]:
    """Stands between the client and the server."""
    with forwarder(gcs.port) as running:
        yield running


@pytest.fixture
def shelf(gcs: GcsServer, between: Forwarder) -> Shelf:
    """A prefix of a bucket of this test alone."""
    return gcs_shelf(gcs, between.port, 0, gcs.new_bucket())


@pytest.fixture
def removers(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[Removers]:
    """Of the shelf."""
    for name, value in shelf.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deleting, "_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(google, "_PATIENCE_S", 1.0)
    opened = Removers(shelf.destination, shelf.environ)
    yield opened
    opened.close()


def of(*runs: str) -> list[tuple[str, str]]:
    """What `Removers` are asked for."""
    return [(f"mlflow-artifacts:/1/{run}", run) for run in runs]


def answering(*statuses: int | tuple[int, ...]) -> Answers:
    """Answers batches: one after the other with a status, or one for each object in it."""
    left = list(statuses)

    def answer(request: Request) -> Reply | None:
        if not request.path.startswith("/batch/") or not left:
            return None
        found = left.pop(0)
        if isinstance(found, int):
            return Reply(found)
        parts = [
            f"--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n\r\n{{}}\r\n"
            for status in found
        ]
        body = "".join([*parts, "--b--"]).encode()
        return Reply(200, body, {"Content-Type": "multipart/mixed; boundary=b"})

    return answer


def test_a_batch_is_one_request(shelf: Shelf, between: Forwarder, removers: Removers) -> None:
    shelf.lay(*(f"1/{run}/{name}" for run in "rst" for name in range(40)), "1/x")
    assert removers.remove(of(*"rst")) == [Freed(40, 200)] * 3
    found = Counter(request.method for request in between.requests)
    assert found == {"GET": 1, "POST": 2}
    assert shelf.paths() == {"1/x"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_objects_that_are_refused_for_now_are_tried_again(
    shelf: Shelf, between: Forwarder, removers: Removers, status: int
) -> None:
    shelf.lay("1/r/a", "1/s/b")
    between.answers = answering((204, status), status)
    assert removers.remove(of("r", "s")) == [Freed(1, 5), Freed(1, 5)]
    assert shelf.paths() == {"1/r/a"}, "the answer was a lie, and the other was asked for again"


@pytest.mark.parametrize("statuses", [(403,), (503, 503, 503)])
def test_objects_that_stay_refused_are_told_for_their_place_only(
    shelf: Shelf, between: Forwarder, removers: Removers, statuses: tuple[int, ...]
) -> None:
    shelf.lay("1/r/a", "1/s/b")
    between.answers = answering((204, statuses[0]), *((each,) for each in statuses[1:]))
    refusal = f"MLFLOW_ARTIFACTS_DESTINATION: {shelf.text}: GCS refuses to delete ({statuses[0]})"
    assert removers.remove(of("r", "s")) == [Freed(1, 5), refusal]


def test_an_object_that_is_gone_meanwhile_is_deleted(
    shelf: Shelf, between: Forwarder, removers: Removers
) -> None:
    shelf.lay("1/r/a")
    between.answers = answering((404,))
    assert removers.remove(of("r")) == [Freed(1, 5)]


def test_settings_that_cannot_be_used_are_78(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "not an address")
    opened = Removers(shelf.destination, {})
    with pytest.raises(SettingsError):
        opened.check()
    assert isinstance(opened.remove(of("r"))[0], str)
    opened.close()
