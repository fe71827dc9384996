"""What an upgrade would do, and the table of releases that it is told with."""

from __future__ import annotations

import itertools

from packaging.version import Version

from mlflow_server.store.revision import (
    SchemaState,
    SchemaStatus,
    head_revision,
    migration_tree,
    pending_after,
)
from mlflow_server.upgrade.plan import TableSize, make_plan
from mlflow_server.upgrade.revisions import known_revisions
from mlflow_server.uris import Dialect
from tests.support.old_stores import RELEASES


def test_each_revision_of_mlflow_is_known_in_its_order() -> None:
    known = known_revisions()
    assert list(known) == list(pending_after(None) or ())
    assert known.keys() == migration_tree().keys()
    assert list(known)[-1] == head_revision()


def test_releases_are_not_newer_than_the_installed_one() -> None:
    from importlib.metadata import version

    installed = Version(version("mlflow"))
    releases = [Version(each.release) for each in known_revisions().values()]
    assert max(releases) <= installed
    # One was made before its neighbours and released after them.
    assert sum(a > b for a, b in itertools.pairwise(releases)) <= 2


def test_the_stores_of_old_releases_have_revisions_of_their_time() -> None:
    known = known_revisions()
    for release, had in RELEASES.items():
        assert Version(known[had.revision].release) <= Version(release)
        after = list(known)[list(known).index(had.revision) + 1]
        assert Version(known[after].release) > Version(release)


def test_tables_that_are_gone_through_are_tables_of_mlflow() -> None:
    from mlflow_server.store.revision import mlflow_tables

    known = known_revisions()
    for revision in known.values():
        for tables in revision.tables.values():
            assert set(tables) <= mlflow_tables()
    assert known["a5b4c3d2e1f0"].tables[Dialect.POSTGRESQL] == ("metrics",)
    assert "trace_info" in known["75868b020152"].tables[Dialect.SQLITE]


def test_a_plan_says_what_is_slow_here() -> None:
    known = known_revisions()
    pending = pending_after("acf3f17fdcc7") or ()
    status = SchemaStatus(SchemaState.BEHIND, "acf3f17fdcc7", head_revision(), pending)
    sizes = {"metrics": TableSize(2_000_000, 400 * 2**20), "runs": TableSize(300, 2**20)}
    plan = make_plan(status, Dialect.POSTGRESQL, known, sizes, 500 * 2**20)
    slow = [each for each in plan.pending if each.is_slow]
    assert [each.revision.id for each in slow] == ["a5b4c3d2e1f0"]
    assert slow[0].tables == {"metrics": 2_000_000}
    assert plan.seconds > slow[0].seconds
    assert plan.disk_bytes >= 900 * 2**20
    assert make_plan(status, Dialect.SQLITE, known, {}, 10).disk_bytes == 30


def test_nothing_is_pending_in_a_current_store() -> None:
    status = SchemaStatus(SchemaState.CURRENT, head_revision(), head_revision())
    plan = make_plan(status, Dialect.SQLITE, known_revisions(), {}, 10**9)
    assert (plan.pending, plan.seconds, plan.disk_bytes) == ((), 0.0, 0)


def test_traces_that_become_columns_are_told_to_take_long() -> None:
    status = SchemaStatus(
        SchemaState.BEHIND, "b7e2c1a4d9f3", head_revision(), pending_after("b7e2c1a4d9f3") or ()
    )
    sizes = {
        "trace_info": TableSize(100_000), "spans": TableSize(400_000),
        "assessments": TableSize(100_000),
    }  # fmt: skip
    plan = make_plan(status, Dialect.POSTGRESQL, known_revisions(), sizes, 2**30)
    # 78 to 87 s were measured.
    assert 60 <= plan.pending[0].seconds <= 180
