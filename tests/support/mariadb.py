"""A MariaDB server of our own: MySQL's dialect against the real thing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import free_port

MARIADBD = shutil.which("mariadbd", path=os.environ.get("PATH", "") + ":/usr/sbin")
# The parameter of a test that runs on several databases: those on this one share a server.
MARIADB = pytest.param("mariadb", marks=pytest.mark.xdist_group("mariadb"))
# Whether data outlives a power cut is not what is tested: without it DDL takes a tenth.
_FAST = ("--skip-log-bin", "--innodb-flush-method=nosync", "--sync-frm=0", "--skip-name-resolve")
# Not UTC, and with summer time: as an operator's server may have it.
_TIME_ZONE = "CET-1CEST,M3.5.0,M10.5.0/3"
_USER, _PASSWORD = "ml", "pw-of-ml"


@dataclass(frozen=True)
class MariaDb:
    """A server with a user who may do everything in his own databases.

    Args:
        port: On 127.0.0.1.
    """

    port: int

    def new_database(self, template: str | None = None) -> str:
        """Create a database and return its URI (`mysql+pymysql://`).

        Args:
            template: The name of another one, whose tables and rows it gets.
        """
        name = f"store_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        if template is not None:
            self._copy(template, name)
        return f"mysql+pymysql://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def execute(self, *statements: str) -> None:
        """Execute statements as the administrator."""
        import pymysql

        root = pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True)
        with root, root.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _copy(self, source: str, target: str) -> None:
        login = ["--no-defaults", "--protocol=tcp", f"--port={self.port}", "--user=root"]
        with subprocess.Popen(
            ["mariadb-dump", *login, "--single-transaction", source], stdout=subprocess.PIPE
        ) as dump:
            subprocess.run(["mariadb", *login, target], stdin=dump.stdout, check=True, timeout=60)
        assert dump.returncode == 0


@contextmanager
def run_mariadb(folder: Path) -> Iterator[MariaDb]:
    """A running server.

    Args:
        folder: An empty one, for the data.
    """
    assert MARIADBD is not None, "CI must have mariadb-server"
    user = "mysql" if os.geteuid() == 0 else str(os.environ.get("USER"))
    for path in (folder, *folder.parents):
        if path == Path("/tmp"):  # noqa: S108
            break
        path.chmod(0o755)
    shutil.chown(folder, user)
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--user={user}",
            f"--datadir={folder}/data",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            *_FAST,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    server = MariaDb(free_port())
    flags = [f"--user={user}", f"--datadir={folder}/data", f"--port={server.port}", *_FAST]
    flags += ["--bind-address=127.0.0.1", f"--socket={folder}/s.sock", f"--pid-file={folder}/p.pid"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [MARIADBD, "--no-defaults", *flags],
            stdout=log,
            stderr=log,
            env={**os.environ, "TZ": _TIME_ZONE},
        )
    try:
        _wait_until_ready(server, folder / "log")
        server.execute(
            f"CREATE USER '{_USER}'@'%' IDENTIFIED BY '{_PASSWORD}'",
            f"GRANT ALL ON `store_%`.* TO '{_USER}'@'%'",
        )
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(server: MariaDb, log: Path) -> None:
    import pymysql

    deadline = time.monotonic() + 60
    while True:
        try:
            server.execute("SELECT 1")
        except pymysql.err.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return
