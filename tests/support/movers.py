"""Move a store from one database to another, and look at what has arrived."""

from __future__ import annotations

from itertools import chain

from mlflow_server.store.load import filling
from mlflow_server.store.snapshot import snapshot
from mlflow_server.store.tables import Checksum
from mlflow_server.uris import parse_store_uri


def sums(uri: str) -> dict[str, tuple[int, str]]:
    """Rows and checksum of every table, read anew."""
    found = {}
    with snapshot(parse_store_uri(uri)) as store:
        for table in store.tables:
            checksum = Checksum(table)
            for batch in store.rows(table):
                checksum.add(batch)
            assert checksum.rows == store.count(table)
            found[table.name] = (checksum.rows, checksum.text)
    return found


def move(
    source: str, target: str, *, replace: bool = False, upgrade: bool = False
) -> dict[str, int]:
    """Move all tables, verified.

    Returns:
        For each table, how many rows the target cannot keep exactly.
    """
    with snapshot(parse_store_uri(source)) as store:
        tables, revision = store.tables, store.revision
        with filling(parse_store_uri(target), tables, revision, replace=replace) as loader:
            for table in loader.brought:
                given = Checksum(table)
                for batch in store.rows(table):
                    given.add(batch)
                loader.load(table, chain.from_iterable(store.rows(table)))
                loader.verify(table, given)
            loader.finish(upgrade=upgrade)
        return dict(loader.adapted)
