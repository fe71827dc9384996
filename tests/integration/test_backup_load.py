"""Backups are made while clients write: nobody notices, and what is restored fits together."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support.everything_place import (
    BACKUPS,
    SUPPORT,
    Copy,
    assert_sound,
    command,
    empty_store,
)
from tests.support.forks import serve
from tests.support.places import Place
from tests.support.programs import clean_environment

pytestmark = pytest.mark.xdist_group("backup-load")

WRITERS = 3
WAIT_S = 60


@contextmanager
def writing(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """A client at work; at the end of the block it finishes its run."""
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "writer.py"), url, name],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait(WAIT_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def finish_runs(writers: list[subprocess.Popen[str]], count: int) -> None:
    """Wait until each has written so many more runs."""
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(count):
            if not writer.stdout.readline():
                assert writer.stderr is not None
                raise AssertionError(writer.stderr.read())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_restored_fits_together(
    kind: str, place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = empty_store(kind, request, tmp_path / "source")
    environment = {**source.environment, BACKUPS: str(tmp_path / "backups")}
    made = []
    with serve(tmp_path / "server", environment=source.environment) as server:
        with ExitStack() as stack:
            writers = [
                stack.enter_context(writing(server.url, str(number))) for number in range(WRITERS)
            ]
            finish_runs(writers, 5)
            for _ in range(2):
                made.append(command(place, "backup", "create", environment=environment))
                finish_runs(writers, 2)
        server.stop()
    assert [each["scope"] for each in made] == ["full", "incremental"]
    before = 0
    for number, each in enumerate(made):
        target = Copy(f"sqlite:///{tmp_path}/{number}.db", str(tmp_path / f"artifacts {number}"))
        command(place, "backup", "verify", each["backup"], environment=environment)
        restoring = {**environment, **target.environment}
        command(place, "restore", each["backup"], environment=restoring)
        complete = check(target)
        assert complete > before, "the clients were at work in between"
        before = complete


def check(target: Copy) -> int:
    """Rows and artifacts fit together; how many runs are complete."""
    path = Path(target.uri.removeprefix("sqlite:///"))
    assert_sound(path)
    with closing(sqlite3.connect(path)) as connection:
        digests = connection.execute(
            "SELECT r.artifact_uri, p.value FROM runs r JOIN params p ON p.run_uuid = r.run_uuid "
            "WHERE p.key = 'artifact'"
        ).fetchall()
        finished = connection.execute(
            "SELECT r.run_uuid FROM runs r WHERE r.status = 'FINISHED' AND "
            "((SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid) <> 50 OR "
            "NOT EXISTS (SELECT 1 FROM model_versions v WHERE v.run_id = r.run_uuid) OR "
            "NOT EXISTS (SELECT 1 FROM params p WHERE p.run_uuid = r.run_uuid))"
        ).fetchall()
        orphans = connection.execute(
            "SELECT count(*) FROM model_versions WHERE run_id NOT IN (SELECT run_uuid FROM runs)"
        ).fetchone()
    assert finished == [], "what came before is there"
    assert orphans == (0,)
    for location, digest in digests:
        folder = Path(target.destination) / location.removeprefix("mlflow-artifacts:/")
        content = (folder / "data" / "content.bin").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert len(digests) >= 5 * WRITERS
    return len(digests)
