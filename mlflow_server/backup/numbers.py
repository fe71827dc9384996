"""Numbers of experiments that a database has no room for, and what becomes of them. Pure.

MLflow's file store calls an experiment by a number of 18 digits, and SQLite keeps it. The column in
PostgreSQL and MySQL has 32 bits.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from mlflow_server.store.tables import Row, Table

_LARGEST = 2**31 - 1
_COLUMN = "experiment_id"
# Tables that name experiments in text: which column, and in which rows.
_ASSOCIATED = ("entity_associations", "destination_type", "experiment", "destination_id")
# MLflow 3.17.2 `prompt/constants.py`; its value is like `,5,0,`.
_LISTED = ("registered_model_tags", "key", "_mlflow_experiment_ids", "value")


def find_new_numbers(experiments: Table, rows: Iterable[Row]) -> dict[int, int]:
    """New numbers for those that are too large, in the order in which they were given.

    Args:
        experiments: The table.
        rows: All of it.

    Returns:
        The new number of each; the free ones after the largest that can stay.
    """
    names = [column.name for column in experiments.columns]
    place = names.index(_COLUMN)
    # Experiments of MLflow before 1.29 have no time.
    time = names.index("creation_time") if "creation_time" in names else None
    staying, going = [0], []
    for row in rows:
        number: Any = row[place]
        if number <= _LARGEST:
            staying.append(number)
        else:
            made: Any = 0 if time is None else row[time] or 0
            going.append((made, number))
    return dict(zip((number for _, number in sorted(going)), count(max(staying) + 1), strict=False))


def renumbering(table: Table, new: Mapping[int, int]) -> Callable[[Row], Row] | None:
    """What replaces the numbers of experiments in a row; None for a table that has none.

    Args:
        table: Whose rows they are.
        new: Number by number.
    """
    names = [column.name for column in table.columns]
    texts = {str(old): str(number) for old, number in new.items()}
    whole: Mapping[Any, Any] = {**new, **texts}

    def plain(row: Row) -> Row:
        return _with(row, names.index(_COLUMN), lambda value: whole.get(value, value))

    def associated(row: Row) -> Row:
        is_one = row[names.index(_ASSOCIATED[1])] == _ASSOCIATED[2]
        place = names.index(_ASSOCIATED[3])
        return _with(row, place, lambda value: whole.get(value, value)) if is_one else row

    def listed(row: Row) -> Row:
        is_one = row[names.index(_LISTED[1])] == _LISTED[2]
        return _with(row, names.index(_LISTED[3]), _in_list) if is_one else row

    def _in_list(value: Any) -> Any:
        return ",".join(texts.get(each, each) for each in value.split(",")) if value else value

    if _COLUMN in names:
        return plain
    return {_ASSOCIATED[0]: associated, _LISTED[0]: listed}.get(table.name)


def _with(row: Row, place: int, change: Callable[[Any], Any]) -> Row:
    changed = list(row)
    changed[place] = change(changed[place])
    return changed
