"""How many connections a database allows to this user."""

from typing import TYPE_CHECKING

from mlflow_server.uris import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection


def free_connections(connection: "Connection") -> int | None:
    """The most connections that ordinary users may have at a time; None when there is no limit.

    Considers the server's limit, what it keeps for administrators, and the limits of the database
    and the role.
    """
    import sqlalchemy

    match connection.dialect.name:
        case Dialect.POSTGRESQL:
            query = (
                "SELECT current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int,"
                " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),"
                " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)"
            )
            row = connection.execute(sqlalchemy.text(query)).one()
            return min(int(limit) for limit in row if limit is not None and int(limit) >= 0)
        case Dialect.MYSQL:
            query = "SELECT @@max_connections, @@max_user_connections"
            row = connection.execute(sqlalchemy.text(query)).one()
            return min(int(limit) for limit in row if int(limit) > 0)
        case _:
            return None
