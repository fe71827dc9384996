"""Read the rows of a query page by page, so that memory does not grow with the store."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE_ROWS = 2_000


def stream(
    connection: "Connection", query: str, parameters: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """The rows of a query, fetched in pages.

    Left before its end it is closed: MySQL's driver takes no other statement before.
    """
    import sqlalchemy

    options = {"stream_results": True, "yield_per": _PAGE_ROWS}
    with connection.execute(
        sqlalchemy.text(query), dict(parameters or {}), execution_options=options
    ) as result:
        yield from result
