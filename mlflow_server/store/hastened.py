"""Have MLflow's revision 75868b020152 take time in proportion to the traces there are.

It goes through spans 250 at a time, and removes rows that have become columns 250 at a time. Each
page looks at everything before it again: at the rows before it, as PostgreSQL and SQLite cannot
begin at the index for `a > x OR (a = x AND b > y)`; at all of `span_metrics`, as SQLite cannot use
one for `(a, b) IN (…)`; or at rows that this transaction has removed already. Ten times the traces
take a hundred times as long, with all tables locked.

The same rows are read, written and removed here. Numbers: docs/design/upgrade.md.
"""

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

# Rows with these keys, by table.
Keys = Mapping[str, list[str]]


@contextmanager
def hastened(connection: "Connection | Engine", removed: Keys) -> Iterator[None]:
    """Let the statements of that revision on a connection be quicker, in the block.

    Args:
        connection: What else is executed on it is left as it is.
        removed: Keys of rows that the revision removes, by table.
    """
    import sqlalchemy

    def haste(
        on: "Connection", statement: Any, multiparams: Any, params: Any, _options: object
    ) -> tuple[Any, Any, Any]:
        if isinstance(statement, sqlalchemy.Select):
            _remove_at_once(on, statement, removed)
            statement = _with_beginning(statement)
            if on.dialect.name == Dialect.SQLITE:
                statement = _with_first_of_pairs(statement)
        return statement, multiparams, params

    sqlalchemy.event.listen(connection, "before_execute", haste, retval=True)
    try:
        yield
    finally:
        sqlalchemy.event.remove(connection, "before_execute", haste)


def _with_beginning(statement: Any) -> Any:
    """`a >= x` as well, where it follows from `a > x OR (a = x AND …)`."""
    where = _plain(statement.whereclause)
    # The whole condition, or one of several.
    parts = where.clauses if _is_list(where, operator.and_) else [where]
    for part in map(_plain, parts):
        if not _is_list(part, operator.or_) or len(part.clauses) != 2:
            continue
        after, same = map(_plain, part.clauses)
        if not _compares(after, operator.gt) or not _is_list(same, operator.and_):
            continue
        equal = same.clauses[0]
        if not _compares(equal, operator.eq) or equal.left is not after.left:
            continue
        value = getattr(after.right, "value", None)
        if value is not None and value == getattr(equal.right, "value", None):
            return statement.where(after.left >= value)
    return statement


def _with_first_of_pairs(statement: Any) -> Any:
    """`a IN (…)` as well, where it follows from `(a, b) IN (…)`, so that SQLite uses an index."""
    from sqlalchemy.sql.elements import Tuple

    where = _plain(statement.whereclause)
    for part in where.clauses if _is_list(where, operator.and_) else [where]:
        if _compares(part, _in()) and isinstance(part.left, Tuple):
            first, *_ = part.left.clauses
            statement = statement.where(first.in_(sorted({pair[0] for pair in part.right.value})))
    return statement


def _remove_at_once(connection: "Connection", statement: Any, removed: Keys) -> None:
    """Before the first page of rows that are all to be removed: remove them."""
    import sqlalchemy

    where = _plain(statement.whereclause)
    if not _compares(where, _in()):
        return
    table = getattr(where.left, "table", None)
    if not isinstance(table, sqlalchemy.Table) or where.left is not table.c.get("key"):
        return
    keys = removed.get(table.name)
    if keys is None or statement._limit is None:
        return
    # Last, as it takes as long as compiling the statement.
    if set(where.right.value) <= set(keys) and statement.get_final_froms() == [table]:
        connection.execute(table.delete().where(where))


def _in() -> Any:
    from sqlalchemy.sql.operators import in_op

    return in_op


def _plain(clause: Any) -> Any:
    from sqlalchemy.sql.elements import Grouping

    while isinstance(clause, Grouping):
        clause = clause.element
    return clause


def _is_list(clause: Any, joined_by: Any) -> bool:
    from sqlalchemy.sql.elements import BooleanClauseList

    return isinstance(clause, BooleanClauseList) and clause.operator is joined_by


def _compares(clause: Any, by: Any) -> bool:
    from sqlalchemy.sql.elements import BinaryExpression

    return isinstance(clause, BinaryExpression) and clause.operator is by
