"""PostgreSQL over TCP, with roles that need a password."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import psycopg

from tests.conftest import Postgres
from tests.standins.network import Relay


@dataclass(frozen=True)
class PasswordServer:
    """PostgreSQL over TCP with roles that need their password (SCRAM).

    Args:
        postgres: The server itself, over its Unix socket, where its administrator needs none.
        relay: The TCP port in front of it.
    """

    postgres: Postgres
    relay: Relay

    def new_role(self, password: str) -> str:
        """Create a role that may log in with this password only."""
        name = f"role_{uuid.uuid4().hex[:12]}"
        with self.administer() as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE {_PASSWORD_ROLES}")
        self.set_password(name, password)
        return name

    def set_password(self, role: str, password: str) -> None:
        """Change a role's password."""
        from psycopg import sql

        with self.administer() as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(password)
                )
            )

    def new_database(self, owner: str) -> str:
        """Create an empty database that a role owns, and return its name."""
        name = urlsplit(self.postgres.new_database()).path.lstrip("/")
        with self.administer() as connection:
            connection.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        return name

    def uri(self, role: str, password: str, database: str, scheme: str = "postgresql") -> str:
        """The address of a database for a role, over TCP."""
        secret = quote(password, safe="")
        return f"{scheme}://{role}:{secret}@127.0.0.1:{self.relay.port}/{database}"

    def administer(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the administrator."""
        uri = self.postgres.uri.replace("/postgres?", f"/{database}?")
        return psycopg.connect(uri, autocommit=True)

    def tables(self, database: str) -> list[str]:
        """Every table in a database that is not PostgreSQL's own."""
        query = (
            "SELECT schemaname || '.' || tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        with self.administer(database) as connection:
            return [row[0] for row in connection.execute(query)]


_PASSWORD_ROLES = "needs_password"


@contextlib.contextmanager
def password_server(postgres: Postgres) -> Iterator[PasswordServer]:
    """Make the PostgreSQL of the tests ask members of one role for a password, over TCP too.

    It listens on a Unix socket only and trusts everybody there; a relay gives it a port.
    """
    folder = parse_qs(urlsplit(postgres.uri).query)["host"][0]
    with psycopg.connect(postgres.uri, autocommit=True) as connection:
        if not connection.execute(
            "SELECT 1 FROM pg_roles WHERE rolname = %s", [_PASSWORD_ROLES]
        ).fetchone():
            connection.execute(f"CREATE ROLE {_PASSWORD_ROLES}")
            row = connection.execute("SHOW hba_file").fetchone()
            assert row is not None
            rules = Path(row[0])
            text = rules.read_text("utf-8")
            rules.write_text(f"local all +{_PASSWORD_ROLES} scram-sha-256\n{text}", "utf-8")
            connection.execute("SELECT pg_reload_conf()")
    server = PasswordServer(postgres, Relay(f"{folder}/.s.PGSQL.5432"))
    try:
        _wait_until_refusing(server)
        yield server
    finally:
        server.relay.close()


def _wait_until_refusing(server: PasswordServer) -> None:
    uri = server.uri(server.new_role("right"), "wrong", "postgres")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            psycopg.connect(uri, connect_timeout=10).close()
        except psycopg.OperationalError as err:
            assert "password authentication failed" in str(err)
            return
        time.sleep(0.05)
    raise AssertionError("PostgreSQL still trusts everybody")
