"""`gc` on stores that hypothesis draws, against what an oracle says of them.

TRACKING_SERVER_TEST_EXAMPLES says how many stores are drawn for each database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from tests.support import forks
from tests.support.gc_oracle import KINDS, Request, Verdict, judge, needed_files
from tests.support.gc_random_store import (
    DESTINATION,
    Experiment,
    Run,
    Store,
    Trace,
    Version,
    new_id,
    place_of,
)
from tests.support.gc_strategies import requests, stores
from tests.support.gc_yard import Files, Yard, differences
from tests.support.mariadb import MARIADB
from tests.support.programs import clean_environment

EXAMPLES = int(os.environ.get("TRACKING_SERVER_TEST_EXAMPLES", "120"))
# Shrinking takes a multiple of the examples, up to five minutes of its own.
pytestmark = [pytest.mark.xdist_group("gc-random"), pytest.mark.timeout(900 + 2 * EXAMPLES)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql", MARIADB])
def yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    fixture = {"postgresql": "postgres", "mariadb": "mariadb"}.get(request.param)
    server = request.getfixturevalue(fixture) if fixture else None
    return Yard.make(tmp_path_factory.mktemp("gc-random"), server)


def test_exactly_what_should_go_is_gone(yard: Yard) -> None:
    @settings(
        # MariaDB takes three times as long for each.
        max_examples=EXAMPLES // 8 if yard.uri.startswith("mysql") else EXAMPLES,
        deadline=None,
        database=None,  # a failure prints how to repeat it; nothing is written beside the code
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        store = data.draw(stores(), label="store")
        request = data.draw(requests(store), label="request")
        for kind in KINDS:
            event(f"{kind} goes: {bool(judge(store, request).gone[kind])}")
        _check(yard, store, request)

    check()


OLD_H = 60 * 24
RUN_ID, OTHER_ID = new_id("run"), new_id("another run")
PLAIN = Experiment(1, "mlflow-artifacts:/1", age_h=OLD_H)
DELETED = Experiment(1, "mlflow-artifacts:/1", deleted=True, age_h=OLD_H)
LOCATION = f"mlflow-artifacts:/1/{RUN_ID}/artifacts"
RUN = Run(RUN_ID, 1, LOCATION, deleted=True, age_h=OLD_H, files=("model/MLmodel",))
TRACE = Trace(
    f"tr-{RUN_ID}", 1, f"mlflow-artifacts:/1/traces/tr-{RUN_ID}/artifacts", files=("traces.json",)
)
BY_HAND = {
    "a file beside its artifacts is not the run's": Store(
        (PLAIN,),
        (replace(RUN, stray=True),),
    ),
    "files of an archived trace go with its experiment": Store(
        (DELETED,),
        traces=(replace(TRACE, archive=f"mlflow-artifacts:/archive/{TRACE.id}/artifacts"),),
    ),
    "nobody knows when the experiment was deleted": Store(
        (Experiment(1, "mlflow-artifacts:/1", deleted=True, age_h=None),)
    ),
    "a version points into a trace": Store(
        (DELETED,), traces=(TRACE,), versions=(Version("None", source=f"{TRACE.location}/a"),)
    ),
    "a version points above a trace": Store(
        (DELETED,), traces=(TRACE,), versions=(Version("None", source="mlflow-artifacts:/1"),)
    ),
    "a version has the path that the run's address means": Store(
        (PLAIN,), (RUN,), versions=(Version("None", source=f"{DESTINATION}/1"),)
    ),
    "a version names the server": Store(
        (PLAIN,), (RUN,), versions=(Version("None", source="mlflow-artifacts://server:5000/1"),)
    ),
}


@pytest.mark.parametrize("store", BY_HAND.values(), ids=BY_HAND.keys())
def test_stores_written_by_hand(yard: Yard, store: Store) -> None:
    _check(yard, store, Request())


@pytest.mark.parametrize("where", ["", "/in", "/../in"], ids=["the same", "in it", "beside it"])
def test_what_goes_takes_nobody_along_that_lies_in_its_folder(yard: Yard, where: str) -> None:
    """Whether the run stays or its files are a failed item: those of the other are not touched."""
    place = f"mlflow-artifacts:/1/{RUN_ID}/in" if where == "/../in" else LOCATION + where
    address = f"{place}/{OTHER_ID}/artifacts" if where else LOCATION
    other = Run(OTHER_ID, 2, address, files=("b.txt",))
    yard.build(Store((PLAIN, Experiment(2, place)), (RUN, other)))
    _run(yard, "gc")
    assert (OTHER_ID,) in yard.tables()["runs"]
    assert f"{place_of(address)}/b.txt" in yard.files()


def _check(yard: Yard, store: Store, request: Request) -> None:
    """Collect, and compare everything with what the oracle says."""
    verdict = judge(store, request)
    yard.build(store)
    tables, files = yard.tables(), yard.files()

    planned = _gc(yard, "--dry-run", *request.options())
    assert (yard.tables(), yard.files()) == (tables, files), "a dry run changed something"
    report = _gc(yard, *request.options())

    left = yard.files()
    if not request.include_referenced:
        lost = needed_files(store) & (files.keys() - left.keys())
        assert not lost, f"a live model version lost {sorted(lost)}"
    _check_report(planned, report, verdict)
    expected = yard.expected_tables(tables, store, verdict.all_gone)
    assert not differences(yard.tables(), expected)
    _check_files(files, left, store, verdict)
    gone = [path for path in files.keys() - left.keys() if files[path] is not None]
    assert report["freed"]["files"] == len(gone)
    assert yard.journal() == 0
    if not request.named:
        again = _gc(yard, *request.options())
        assert (again["purged"], again["freed"]["files"]) == ({}, 0)
        assert yard.files() == left


def _run(yard: Yard, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forks.run(
        [sys.executable, "-m", "mlflow_server", *arguments],
        env=clean_environment(**yard.environment),
        cwd=yard.root,
        timeout=60,
    )


def _gc(yard: Yard, *options: str) -> Any:
    ended = _run(yard, "gc", "--json", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def _check_report(planned: Any, report: Any, verdict: Verdict) -> None:
    """The plan is the outcome, and both say what the oracle says."""
    facts = {item["name"]: item["facts"] for item in report["items"]}
    assert {item["name"]: item["facts"] for item in planned["items"]} == facts
    assert planned["experiments"] == report["experiments"]
    going = {kind: len(verdict.gone[kind]) for kind in KINDS}
    assert {kind: facts[kind]["going"] for kind in KINDS} == going
    assert report["purged"] == {kind: count for kind, count in going.items() if count}
    for kind, members in verdict.staying.items():
        told = facts[kind]["staying"]
        assert sum(told.values()) == len(members), (kind, told)
        # Where there are several reasons, any may be told.
        for reason in told.keys() | frozenset().union(*members.values()):
            only = sum(reasons == {reason} for reasons in members.values())
            possible = sum(reason in reasons for reasons in members.values())
            assert only <= told.get(reason, 0) <= possible, (kind, reason, told)


def _check_files(before: Files, after: Files, store: Store, verdict: Verdict) -> None:
    """Files of what is gone are gone with their folders; nothing else is."""
    gone, laid = verdict.all_gone, store.files()
    going = {file.path for file in laid if file.owner in gone and not file.is_folder}
    there = {path for path, content in before.items() if content is not None}
    left = {path for path, content in after.items() if content is not None}
    assert not going & left, "files of what is gone are left"
    assert not there - going - left, "files of what stays are gone"
    assert {path: after[path] for path in left} == {path: before[path] for path in there - going}
    kept = {file.path for file in laid if file.owner not in gone and file.is_folder}
    assert kept <= after.keys(), "an empty folder of what stays is gone"
    folders = {file.folder for file in laid if file.owner in gone and file.folder}
    holding = {str(folder) for path in left for folder in PurePosixPath(path).parents}
    empty = folders - holding
    assert not empty & after.keys(), "empty folders are left"
    assert not [path for path in after if ".gc-trash" in path]
