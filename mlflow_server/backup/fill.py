"""Put tables into an empty database and compare what is there with what was given."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from mlflow_server.backup.locations import Moves, moving
from mlflow_server.backup.numbers import find_new_numbers, renumbering
from mlflow_server.store.load import Loader, filling
from mlflow_server.store.tables import Checksum, Row, Table
from mlflow_server.uris import StoreUri


@dataclass(frozen=True)
class Content:
    """What a database is to hold.

    Args:
        revision: Of its schema.
        tables: Parents before children.
        rows: All rows of a table, in batches.
        auth_revision: Of the tables of basic authentication; None without any.
        checksum: Of a table's rows, where `rows` itself makes sure of it; None: they are counted.
    """

    revision: str | None
    tables: Sequence[Table]
    rows: Callable[[Table], Iterator[Sequence[Row]]]
    auth_revision: str | None = None
    checksum: Callable[[Table], Checksum | None] = lambda _table: None


@dataclass
class Filled:
    """What was put into a database.

    Args:
        rows: By table.
        adapted: By table, rows that this kind of database cannot keep exactly.
        moved: How many locations of artifacts were written anew.
        renumbered: Experiments that have another number now, as theirs was too large.
    """

    rows: dict[str, int]
    adapted: dict[str, int]
    moved: int = 0
    renumbered: dict[int, int] = field(default_factory=dict)


@contextmanager
def filled(
    uri: StoreUri,
    content: Content,
    moves: Moves,
    tell: Callable[[int], None],
    *,
    replace: bool,
    upgrade: bool = True,
) -> Iterator[Filled]:
    """Fill an empty database; after the block the store is there, in one step.

    Args:
        uri: Which.
        content: What with.
        moves: What becomes of locations of artifacts.
        tell: Called with how many more rows were written.
        replace: Whether a store that is there goes.
        upgrade: Whether the schema is brought to the newest revision then.

    Raises:
        OpsError: It could not be filled, or holds something else than was written; it is as it was.
    """
    revisions = content.revision, content.auth_revision
    with filling(uri, content.tables, *revisions, replace=replace) as loader:
        result = Filled({}, {})
        if not uri.is_sqlite:
            result.renumbered = _renumber(content)
        for table in content.tables:
            result.rows[table.name] = _load(loader, table, content, moves, tell, result)
        result.adapted = dict(loader.adapted)
        yield result
        # Those of basic authentication are upgraded by the application itself.
        loader.finish(upgrade=upgrade and content.revision is not None)


def _renumber(content: Content) -> dict[int, int]:
    for table in content.tables:
        if table.name == "experiments":
            return find_new_numbers(table, chain.from_iterable(content.rows(table)))
    return {}


def _load(
    loader: Loader,
    table: Table,
    content: Content,
    moves: Moves,
    tell: Callable[[int], None],
    result: Filled,
) -> int:
    move = moving(table, moves) if moves else None
    renumber = renumbering(table, result.renumbered) if result.renumbered else None
    is_same = move is None and renumber is None
    known = content.checksum(table) if is_same else None
    given = known or Checksum(table)

    def rows() -> Iterator[Sequence[Row]]:
        for batch in content.rows(table):
            if renumber is not None:
                batch = list(map(renumber, batch))
            if move is not None:
                moved = list(map(move, batch))
                result.moved += sum(map(_differ, batch, moved))
                batch = moved
            if known is None:
                given.add(batch)
            tell(len(batch))
            yield batch

    count = loader.load(table, chain.from_iterable(rows()))
    loader.verify(table, given)
    return count


def _differ(old: Row, new: Row) -> int:
    return sum(a != b for a, b in zip(old, new, strict=True))
