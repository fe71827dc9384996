"""How large the tables of a store are, without counting them."""

from typing import TYPE_CHECKING

from mlflow_server.upgrade.plan import TableSize
from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection

_POSTGRESQL = """
SELECT c.relname, greatest(c.reltuples, s.n_live_tup, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND n.nspname = current_schema()
"""
_MYSQL = """
SELECT table_name, table_rows, data_length + index_length
FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'
"""


def read_sizes(connection: "Connection") -> dict[str, TableSize]:
    """What the database's statistics say of each table; on SQLite the largest row number."""
    if connection.dialect.name != Dialect.SQLITE:
        query = _POSTGRESQL if connection.dialect.name == Dialect.POSTGRESQL else _MYSQL
        rows = connection.exec_driver_sql(query)
        return {name: TableSize(int(count or 0), int(size or 0)) for name, count, size in rows}
    names = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
        "AND sql NOT LIKE '%WITHOUT ROWID%'"
    ).scalars()
    found = {}
    for name in list(names):
        quoted = connection.dialect.identifier_preparer.quote(name)
        query = f"SELECT max(rowid) FROM {quoted}"  # noqa: S608 - quoted
        found[name] = TableSize(int(connection.exec_driver_sql(query).scalar() or 0))
    return found
