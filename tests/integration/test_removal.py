"""What removing has to do wherever artifacts are; one suite for every kind of destination.

Local folders, a real S3 server, servers of GCS's and Azure's APIs, a tracking server of our own;
for Data Lake a stand-in, as nothing else speaks its language.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_server.artifacts.buckets import azure, gcs
from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import ExitCode, OpsError
from tests.standins.forwarder import Reply, Request, forwarder
from tests.support.forks import serve
from tests.support.programs import DESTINATION, STORE
from tests.support.shelves import Shelf, server_shelf

RUN = "0123456789abcdef" * 2
OTHER = "1123456789abcdef" * 2
ODD = ("größe 1 %.txt", "a+b#c&d=e;f", "%41%2F", "naïve\U0001f600", "'\"<>", "n" * 200)

Open = Callable[[Shelf], Removers]
KINDS = [
    pytest.param(kind, marks=pytest.mark.xdist_group(group))
    for kind, group in {
        "local": "removal",
        "s3": "s3",
        "gcs": "gcs",
        "azure": "azure",
        "lake": "removal",
        "server": "removal",
    }.items()
]
REMOTE = [param for param in KINDS if param.values != ("local",)]


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str, Path]]:
    """A server of our own behind a gateway that asks for a token; port, token, destination."""
    folder = tmp_path_factory.mktemp("tracking-server")
    token, destination = "right-token", folder / "artifacts"
    destination.mkdir()

    def is_refused(request: Request) -> Reply | None:
        return None if request.headers.get("authorization") == f"Bearer {token}" else Reply(401)

    environment = {STORE: f"sqlite:///{folder}/store.sqlite", DESTINATION: str(destination)}
    with (
        serve(folder, environment=environment) as server,
        forwarder(server.port, is_refused) as gateway,
    ):
        yield gateway.port, token, destination


@pytest.fixture
def open_removers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open what is closed at the end; client libraries look into the environment by themselves."""
    opened = []

    def open_them(shelf: Shelf) -> Removers:
        for name, value in shelf.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers credentials
        monkeypatch.setattr(gcs, "_PATIENCE_S", 2.0)
        monkeypatch.setitem(azure.LIMITS, "increment_base", 0.1)
        opened.append(Removers(shelf.destination, shelf.environ))
        return opened[-1]

    yield open_them
    for removers in opened:
        removers.close()


def entities(*places: str) -> list[tuple[str, str]]:
    """Location and id of runs, by experiment and id."""
    return [(f"mlflow-artifacts:/{place}/artifacts", place.split("/")[-1]) for place in places]


def totals(results: list[Freed | str] | list[Found | str]) -> list[tuple[int, int]]:
    """How many files and bytes, of results none of which is a failure."""
    found = []
    for result in results:
        assert not isinstance(result, str), result
        found.append((result.files, result.size_bytes))
    return found


# --- What goes and what stays ------------------------------------------------------------------


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_exactly_the_places_go(shelf: Shelf, open_removers: Open) -> None:
    going = [f"1/{RUN}/artifacts/{name}" for name in ODD]
    going += [f"1/{RUN}/artifacts/x", f"1/{RUN}/artifacts/a b/ü+/y", f"2/{RUN[:-1]}/artifacts/z"]
    staying = [f"1/{RUN}x/a", f"1/{RUN}-x/a", f"1/{RUN}.x", f"1/{OTHER}/a", f"10/{RUN}/a", "1/b"]
    staying += [f"2/{RUN}/a", f"workspaces/w/1/{RUN}/artifacts/a", "a"]
    shelf.lay(*going, *staying)
    removers = open_removers(shelf)
    asked = entities(f"1/{RUN}", f"3/{OTHER}", f"2/{RUN[:-1]}", f"2/{OTHER}")
    counted = [(len(ODD) + 2, 5 * (len(ODD) + 2)), (0, 0), (1, 5), (0, 0)]
    measured = removers.measure(asked)
    assert totals(measured) == counted
    assert measured[1] == measured[3] == Found()
    for result in (measured[0], measured[2]):
        assert isinstance(result, Found)
        assert (result.newest_s is not None) == shelf.tells_times
        assert result.newest_s is None or abs(time.time() - result.newest_s) < 600
    assert shelf.paths() == {*going, *staying}, "measuring changes nothing"
    assert totals(removers.remove(asked)) == counted
    assert shelf.paths() == set(staying)
    assert removers.remove(asked) == [Freed()] * 4
    assert removers.remove(entities(f"workspaces/w/1/{RUN}"))[0] == Freed(1, 5)
    assert removers.remove_below([("10", RUN), ("10", "y")]) == [Freed(1, 5), Freed()]
    assert totals(removers.measure_below([("1",), ("1", f"{RUN}-x")])) == [(5, 25), (1, 5)]
    assert shelf.paths() == set(staying) - {f"workspaces/w/1/{RUN}/artifacts/a", f"10/{RUN}/a"}


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_what_lies_beside_a_location_stays(shelf: Shelf, open_removers: Open) -> None:
    going = [f"1/{RUN}/artifacts/a", f"1/{RUN}/artifacts/deep/b", f"1/{OTHER}/artifacts/c"]
    going += [f"2/{RUN}/x/artifacts/d", f"2/{OTHER}/x/artifacts/e"]
    staying = [f"1/{RUN}/stray.txt", f"1/{RUN}/artifacts.txt", f"1/{RUN}/artifacts-x/a"]
    staying += [f"2/{RUN}/x/stray.txt", f"3/{RUN}/stray.txt"]
    shelf.lay(*going, *staying)
    removers = open_removers(shelf)
    asked = entities(f"1/{RUN}", f"1/{OTHER}", f"3/{RUN}")
    asked += [(f"mlflow-artifacts:/2/{run}/x/artifacts", run) for run in (RUN, OTHER)]
    counted = [(2, 10), (1, 5), (0, 0), (1, 5), (1, 5)]
    assert totals(removers.measure(asked)) == counted
    assert totals(removers.remove(asked)) == counted
    assert shelf.paths() == set(staying)
    assert removers.remove(asked) == [Freed()] * 5
    assert shelf.paths() == set(staying)
    if not shelf.text.startswith("s3:"):  # that server still names folders of keys that are gone
        assert list(removers.folders(("1",))) == [RUN], "a folder with nothing else goes"


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_thousands_of_files_in_one_place(shelf: Shelf, open_removers: Open) -> None:
    many = shelf.many
    shelf.lay(*(f"1/{RUN}/artifacts/{number % 7}/{number}" for number in range(many)), "1/x")
    removers = open_removers(shelf)
    assert totals(removers.measure(entities(f"1/{RUN}"))) == [(many, 5 * many)]
    assert removers.remove(entities(f"1/{RUN}", f"1/{OTHER}")) == [Freed(many, 5 * many), Freed()]
    assert shelf.paths() == {"1/x"}


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_folders_are_listed(shelf: Shelf, open_removers: Open) -> None:
    shelf.lay("1/a/x", "1/b c/x/y", "1/größe/x", "1/file", "10/x", "models/m-1/x")
    removers = open_removers(shelf)
    assert sorted(removers.folders(())) == ["1", "10", "models"]
    assert sorted(removers.folders(("1",))) == ["a", "b c", "größe"]
    assert list(removers.folders(("1", "a"))) == list(removers.folders(("2", "missing"))) == []


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_what_is_no_place_of_an_entity_stays(shelf: Shelf, open_removers: Open) -> None:
    shelf.lay("1/a", "b", f"1/{RUN}/c")
    removers = open_removers(shelf)
    locations = ["", "/", "1", "../x", f"1/../{RUN}", f"1/{RUN}x"]
    asked = [(f"mlflow-artifacts:/{location}", RUN) for location in locations]
    for results in (removers.remove(asked), removers.remove_below([(), ("1", ".."), ("",)])):
        assert all(isinstance(result, str) for result in results), results
    assert shelf.paths() == {"1/a", "b", f"1/{RUN}/c"}


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_an_empty_experiment_goes_and_a_full_one_stays(shelf: Shelf, open_removers: Open) -> None:
    shelf.lay(f"5/{RUN}/artifacts/a", f"6/{RUN}/artifacts/a", f"6/{OTHER}/b")
    removers = open_removers(shelf)
    removers.remove(entities(f"5/{RUN}", f"6/{RUN}"))
    for number in "56":
        removers.remove_empty(f"mlflow-artifacts:/{number}", number, ["models", "traces"])
    assert not shelf.has_folders or list(removers.folders(())) == ["6"]
    assert shelf.paths() == {f"6/{OTHER}/b"}


# --- Whether it can ----------------------------------------------------------------------------


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_a_check_leaves_nothing_behind(shelf: Shelf, open_removers: Open) -> None:
    removers = open_removers(shelf)
    assert removers.check() is False
    shelf.lay("1/a")
    assert removers.check() is True
    assert shelf.paths() == {"1/a"}


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_refused_credentials_are_77_and_not_told(shelf: Shelf, open_removers: Open) -> None:
    shelf.lay(f"1/{RUN}/a")
    removers = open_removers(replace(shelf, environ=shelf.refused))
    told = []
    for work in (removers.check, lambda: list(removers.folders(()))):
        with pytest.raises(OpsError) as failure:
            work()
        assert failure.value.exit_code is ExitCode.NOT_PERMITTED, failure.value.message
        told += [failure.value.message, failure.value.hint or ""]
    for result in (*removers.remove(entities(f"1/{RUN}")), *removers.measure_below([("1",)])):
        assert isinstance(result, str)
        told.append(result)
    assert "hidden" not in "".join(told)
    assert shelf.paths() == {f"1/{RUN}/a"}


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_what_is_not_there_is_69(shelf: Shelf, open_removers: Open) -> None:
    removers = open_removers(shelf.where_nothing_is)
    for work in (removers.check, lambda: list(removers.folders(()))):
        with pytest.raises(OpsError) as failure:
            work()
        assert failure.value.exit_code is ExitCode.UNAVAILABLE, failure.value.message
    (result,) = removers.remove(entities(f"1/{RUN}"))
    assert isinstance(result, str)


# --- Whatever the network does -----------------------------------------------------------------


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_store_that_answers_503_now_and_then(shelf: Shelf, open_removers: Open) -> None:
    runs = [f"{number}/{RUN}" for number in range(8)]
    shelf.lay(*(f"{run}/artifacts/a" for run in runs), "x")

    refused: set[tuple[str, str]] = set()

    def every_third(request: Request) -> Reply | None:
        """But none twice: with several threads, one could have bad luck at each attempt."""
        what = (request.method, request.path)
        if request.number % 3 or what in refused:
            return None
        refused.add(what)
        return Reply(503)

    with forwarder(shelf.port, every_third) as busy:
        removers = open_removers(replace(shelf, environ=shelf.at_port(busy.port)))
        assert removers.remove(entities(*runs)) == [Freed(1, 5)] * 8
        assert refused
    assert shelf.paths() == {"x"}


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_store_that_answers_503_always(shelf: Shelf, open_removers: Open) -> None:
    shelf.lay(f"1/{RUN}/a")
    with forwarder(shelf.port, lambda _: Reply(503)) as busy:
        removers = open_removers(replace(shelf, environ=shelf.at_port(busy.port)))
        for result in (*removers.remove(entities(f"1/{RUN}")), *removers.measure_below([("1",)])):
            assert isinstance(result, str)
            assert "503" in result
        with pytest.raises(OpsError) as failure:
            removers.check()
        assert failure.value.exit_code is ExitCode.UNAVAILABLE
    assert shelf.paths() == {f"1/{RUN}/a"}


@pytest.mark.xdist_group("removal")
def test_a_server_without_workspaces_is_asked_without(
    tracking_server: tuple[int, str, Path],
) -> None:
    """Here, as this is the suite that has such a server."""
    port, token, folder = tracking_server
    shelf = server_shelf(port, token, folder)
    path = folder / f"workspaces/w/1/{RUN}/artifacts/a"
    path.parent.mkdir(parents=True)
    path.write_text("12345")
    removers = Removers(replace(shelf, text="mlflow-artifacts:/").destination, shelf.environ)
    assert removers.remove(entities(f"workspaces/w/1/{RUN}")) == [Freed(1, 5)]
    removers.close()
    assert not path.exists()
