"""`gc` where MySQL's dialect is unlike the others; what all databases share is in `test_gc*.py`."""

from __future__ import annotations

import pytest
import sqlalchemy

from mlflow_server.gc import rows
from mlflow_server.gc.judge import database_now_ms
from mlflow_server.store.engine import create_write_engine
from mlflow_server.uris import parse_store_uri
from tests.support.gc_place import EXPERIMENTS, MODELS, RUNS, Yard

MANY = 20_000
pytestmark = [
    pytest.mark.xdist_group("mariadb"),
    pytest.mark.parametrize("yard", ["mariadb"], indirect=True),
]


def test_no_table_is_read_whole_to_delete_what_is_in_an_experiment(yard: Yard) -> None:
    """A DELETE with a subquery looks at every row of its table, unless it is written otherwise."""
    for statement in (
        "INSERT INTO metrics (`key`, value, timestamp, run_uuid, step, is_nan) "  # noqa: S608
        f"SELECT 'k', 0, seq, '{yard.ids['active']}', seq, 0 FROM seq_1_to_{MANY}",
        "ANALYZE TABLE metrics, runs",
    ):
        yard.query(statement.replace("`", '"'))
    with create_write_engine(parse_store_uri(yard.uri)).begin() as connection:
        rows.delete_experiments(connection, [int(yard.ids["gone"])])
        status = "SHOW SESSION STATUS LIKE 'Handler_read_rnd_next'"
        looked_at = int(connection.execute(sqlalchemy.text(status)).one()[1])
    assert looked_at < MANY


def test_ids_are_meant_as_they_are_written(yard: Yard) -> None:
    """The database takes ABC for abc."""
    for option, name in (("--run-ids", "old"), ("--logged-model-ids", "model-old")):
        ended = yard.gc(option, yard.ids[name].upper())
        assert (ended.returncode, "there is no" in ended.stderr) == (2, True)
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)


def test_the_clock_is_right_while_an_hour_comes_twice(yard: Yard) -> None:
    """At the end of summer time: 02:01 in CEST, and an hour later in CET."""
    with create_write_engine(parse_store_uri(yard.uri)).begin() as connection:
        for now_s in (1_792_886_460, 1_792_890_060):
            connection.exec_driver_sql(f"SET timestamp = {now_s}")
            assert database_now_ms(connection) == now_s * 1000
