"""What goes wrong with backups: said in a line, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_server.backup.turn import MARKER, _machine
from mlflow_server.store.lock import exclusive
from mlflow_server.uris import parse_store_uri
from tests.conftest import Postgres
from tests.standins.forwarder import Reply, Request, forwarder
from tests.support.backup_place import BACKUPS, Depot, files_of, rows_of
from tests.support.places import WITHOUT_POWERS, snapshot
from tests.support.programs import DESTINATION, STORE, clean_environment
from tests.support.s3 import S3Server

BUSY, UNREACHABLE, REFUSED = 75, 69, 77
SECRET = "planted-S3cret"
pytestmark = [pytest.mark.xdist_group("backup"), pytest.mark.timeout(300)]


def _program(depot: Depot, *arguments: str, prefix: tuple[str, ...] = ()) -> list[str]:
    return [*prefix, sys.executable, "-m", "mlflow_server", *arguments]


def _run(
    depot: Depot, command: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command,
        env=clean_environment(**depot.environment, **(environment or {})),
        cwd=depot.place.project,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr, ended.stderr
    return ended


def _on_small_disk(depot: Depot, disk: Path, limit: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command where a folder is a disk of its own, and tell what is on it afterwards."""
    disk.mkdir(parents=True, exist_ok=True)
    script = (
        f"mount -t tmpfs -o {limit} tmpfs {disk} || exit 99; "
        f'"$@"; code=$?; echo; echo AFTERWARDS; find {disk} -type f; exit $code'
    )
    ended = _run(depot, ["unshare", "-m", "sh", "-c", script, "sh", *_program(depot, *arguments)])
    if ended.returncode == 99:
        pytest.skip("no disk may be mounted here")
    return ended.returncode, ended.stderr, ended.stdout.partition("AFTERWARDS\n")[2]


# --- A full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["size=300k", "nr_inodes=30"])
def test_a_full_disk_below_the_backups(depot: Depot, limit: str) -> None:
    (depot.artifacts / depot.ids["stays"] / depot.ids["active"] / "artifacts/large").write_bytes(
        os.urandom(400_000)
    )
    code, told, left = _on_small_disk(depot, depot.folder, limit, "backup", "create")
    assert code == UNREACHABLE, told
    assert "disk is full" in told
    assert left.split() == [f"{depot.folder}/.packs/lock"]


def test_a_full_disk_below_the_destination(depot: Depot) -> None:
    depot.create()
    target = depot.target()
    folder = Path(target[DESTINATION])
    moved = replace(depot, extra=target)
    code, told, left = _on_small_disk(moved, folder, "nr_inodes=20", "restore", "latest")
    assert code == UNREACHABLE, told
    assert "disk is full" in told
    assert ".mlflow-server-part-" not in left
    assert not Path(target[STORE].removeprefix("sqlite:///")).exists()
    code, told, left = _on_small_disk(moved, folder, "size=4k", "restore", "latest", "--dry-run")
    assert code in (0, UNREACHABLE)
    depot.done("restore", "latest", **target)


def test_a_full_disk_below_the_store(depot: Depot) -> None:
    depot.create()
    folder = depot.place.root / "small"
    moved = replace(
        depot,
        extra={STORE: f"sqlite:///{folder}/store.db", DESTINATION: str(depot.place.root / "files")},
    )
    code, told, left = _on_small_disk(moved, folder, "size=600k", "restore", "latest")
    assert code == UNREACHABLE, told
    assert left.split() == [f"{folder}/store.db.lock"]


# --- What may not be done, or is not there -------------------------------------------------------


def test_a_place_that_may_not_be_written_to(depot: Depot) -> None:
    depot.create()
    before = files_of(depot.folder)
    for folder in (depot.folder, depot.folder / ".packs"):
        folder.chmod(0o555)
        create = _run(depot, _program(depot, "backup", "create", "--full", prefix=WITHOUT_POWERS))
        folder.chmod(0o755)
        assert create.returncode == REFUSED, create.stderr
        assert "may not be written" in create.stderr
        assert files_of(depot.folder).keys() == before.keys()


def test_a_place_that_cannot_be(depot: Depot) -> None:
    (depot.place.root / "file").write_text("")
    ended = depot.run("backup", "create", "--to", str(depot.place.root / "file/below"))
    assert ended.returncode in (65, UNREACHABLE, REFUSED), ended.stderr
    assert depot.run("backup", "create", "--to", "ftp://host/x").returncode == 78
    for text in ("ftp://host/20261121T134115Z", "s3:///20261121T134115Z", "nosuch:/latest"):
        ended = depot.run("backup", "verify", text)
        assert ended.returncode in (2, 78), (text, ended.returncode, ended.stderr)
        assert ended.stderr.count("\n") < 6


@pytest.mark.parametrize("command", [("backup", "verify"), ("restore",)])
def test_a_backup_that_is_not_there(depot: Depot, command: tuple[str, ...]) -> None:
    before = snapshot(depot.place.root)
    for archive, code in (("20200101T000000Z", UNREACHABLE), ("nonsense", 2), ("../x", 2)):
        ended = depot.run(*command, archive, environment=depot.target())
        assert ended.returncode == code, ended.stderr
        assert "no backup" in ended.stderr
    assert depot.run(*command, "latest", environment=depot.target()).returncode in (69, 78)
    assert depot.run("backup", "prune", "--keep-last", "1").returncode == 0
    assert snapshot(depot.place.root) == before


def test_a_store_that_is_not_there(depot: Depot) -> None:
    missing = f"sqlite:///{depot.place.root}/missing.db"
    before = snapshot(depot.place.root)
    for command in (("backup", "create"), ("migrate",)):
        environment = {STORE: missing, "TRACKING_SERVER_TO_BACKEND_STORE_URI": f"{missing}2"}
        ended = depot.run(*command, environment=environment)
        assert ended.returncode == UNREACHABLE
    assert snapshot(depot.place.root) == before


def test_a_destination_that_is_not_mounted(depot: Depot) -> None:
    first = depot.create()
    depot.artifacts.rename(depot.artifacts.with_name("elsewhere"))
    for options in ((), ("--full",), ("--dry-run",)):
        ended = depot.run("backup", "create", *options)
        assert ended.returncode == UNREACHABLE
        assert "perhaps a volume is not mounted" in ended.stderr
    # Mounted, but nothing is on it.
    depot.artifacts.mkdir()
    ended = depot.run("backup", "create")
    assert ended.returncode == UNREACHABLE
    assert (depot.names(), depot.leftovers()) == ([first], set())
    depot.create("--no-artifacts")


def test_a_new_store_without_artifacts_needs_no_destination(depot: Depot) -> None:
    for table in ("runs", "logged_models", "model_versions"):
        depot.query(f"DELETE FROM {table}")  # noqa: S608
    shutil.rmtree(depot.artifacts)
    name = depot.create()
    assert depot.verified(name).problems == []


def test_targets_that_are_not_empty(depot: Depot, postgres: Postgres) -> None:
    depot.create()
    before = files_of(depot.place.root)
    ended = depot.run("restore", "latest")
    assert ended.returncode == 1
    assert "the store is not empty" in ended.stderr
    target = depot.target()
    ended = depot.run(
        "restore", "latest", environment={**target, DESTINATION: str(depot.artifacts)}
    )
    assert ended.returncode == 1
    assert "the artifact destination is not empty" in ended.stderr
    assert files_of(depot.place.root) == before
    foreign = postgres.new_database()
    import psycopg

    with psycopg.connect(foreign, autocommit=True) as connection:
        connection.execute("CREATE TABLE theirs (a int)")
    for option in ((), ("--replace", "--yes")):
        ended = depot.run("restore", "latest", *option, environment={**target, STORE: foreign})
        assert ended.returncode in (1, 4), ended.stderr
    assert rows_of(foreign) == {"theirs": []}
    to = {"TRACKING_SERVER_TO_BACKEND_STORE_URI": depot.uri}
    assert depot.run("migrate", environment=to).returncode == 2, "it is the source itself"
    assert files_of(depot.place.root).keys() - {"backups/.packs/lock"} <= before.keys()


# --- Locations and names that cannot be meant ----------------------------------------------------


def test_what_cannot_be_meant_is_named_and_the_rest_is_there(depot: Depot) -> None:
    run = depot.artifacts / depot.ids["stays"] / depot.ids["active"] / "artifacts"
    (run / os.fsdecode(b"not-\xff-utf8")).write_text("x")
    (run / "new\nline").write_text("x")
    (run / "link").symlink_to("/etc/passwd")
    outside = {
        "old": "mlflow-artifacts:/../../etc", "young": "relative/path", "needed": "ftp://u:pw@h/x",
        "gone-1": "s3://", "gone-2": "//host/x", "held-old": "file://host/x",
    }  # fmt: skip
    for name, location in outside.items():
        depot.query(
            "UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :id",
            uri=location,
            id=depot.ids[name],
        )
    ended = depot.done("backup", "create", "--json", code=3)
    failed = [item["name"] for item in ended.report["items"] if item["status"] == "failed"]
    assert len(failed) == 6, failed  # the last two are folders that are not there
    name = ended.report["backup"]
    assert depot.verified(name).problems == []
    assert "u:pw" not in ended.stdout + ended.stderr
    target = depot.target()
    depot.done("restore", "latest", **target)
    assert f"{depot.ids['stays']}/{depot.ids['active']}/artifacts/new\nline" in files_of(
        Path(target[DESTINATION])
    )


# --- At the same time ----------------------------------------------------------------------------


def _together(depots: list[Depot]) -> list[tuple[int, str]]:
    running = [
        subprocess.Popen(
            _program(depot, "backup", "create"),
            env=clean_environment(**depot.environment),
            cwd=depot.place.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for depot in depots
    ]
    ends = [process.communicate(timeout=120) for process in running]
    return [(process.returncode, err) for process, (_, err) in zip(running, ends, strict=True)]


def test_two_backups_at_once(depot: Depot) -> None:
    ends = _together([depot, depot])
    codes = [code for code, _ in ends]
    assert 0 in codes, ends
    assert set(codes) <= {0, BUSY}, ends
    assert len(depot.names()) == codes.count(0)
    assert depot.leftovers() == set()
    depot.check_sound()


def test_two_stores_into_one_place(depot: Depot, tmp_path: Path) -> None:
    root = tmp_path / "other"
    shutil.copytree(depot.place.root, root)
    other = replace(depot, place=replace(depot.place, root=root))
    ends = _together([depot, other])
    codes = [code for code, _ in ends]
    assert 0 in codes, ends
    assert set(codes) <= {0, BUSY}, ends
    names = {depot.create(), other.create()}
    assert names <= set(depot.names())
    assert depot.leftovers() == set()
    depot.check_sound()


def test_it_waits_for_nobody(depot: Depot) -> None:
    name = depot.create()
    with exclusive(parse_store_uri(depot.uri), "gc"):
        ended = depot.run("backup", "create")
        assert (ended.returncode, "gc" in ended.stderr) == (BUSY, True)
    with depot.shelf().exclusive("backup create"):
        for command in (("create",), ("prune", "--keep-last", "1")):
            ended = depot.run("backup", *command)
            assert (ended.returncode, "backup create" in ended.stderr) == (BUSY, True)
        depot.done("backup", "prune", "--keep-last", "1", "--dry-run")
    assert (depot.names(), depot.leftovers()) == ([name], set())


# --- Object stores -------------------------------------------------------------------------------


@pytest.fixture
def remote(depot: Depot, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Depot:
    """Backups of the same store in a bucket, which this process may look into, too."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return replace(depot, backups=f"s3://{bucket}/deep/place", extra=s3.environment)


def _at(remote: Depot, port: int) -> Depot:
    extra = {**remote.extra, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    return replace(remote, extra=extra)


def _keys(remote: Depot, s3: S3Server) -> set[str]:
    bucket = remote.backups.split("/")[2]
    with s3.administer() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        found = {entry["Key"] for page in pages for entry in page.get("Contents", ())}
    return {key.removeprefix("deep/place/") for key in found}


def _remote_leftovers(remote: Depot, s3: S3Server) -> set[str]:
    wanted = set()
    for name in remote.names():
        wanted |= {f"{name}/{file}" for file in (*remote.shelf().sums(name), "SHA256SUMS")}
        wanted |= {f".packs/{pack.file}" for pack in remote.shelf().manifest(name).packs}
    return _keys(remote, s3) - wanted


def _port(s3: S3Server) -> int:
    return int(s3.endpoint.rpartition(":")[2])


def test_a_store_that_is_busy_now_and_then(remote: Depot, s3: S3Server) -> None:
    def answers(request: Request) -> Reply | None:
        return Reply(503) if request.number % 40 == 0 else None

    with forwarder(_port(s3), answers) as front:
        flaky = _at(remote, front.port)
        name = flaky.create()
        flaky.done("backup", "verify", "latest")
        flaky.done("restore", "latest", "--no-artifacts", **remote.target())
    assert remote.verified(name).problems == []
    assert _remote_leftovers(remote, s3) == set()


def test_a_store_that_is_always_busy(remote: Depot, s3: S3Server) -> None:
    with forwarder(_port(s3), lambda _: Reply(503)) as front:
        busy = _at(remote, front.port)
        for command in (("backup", "create"), ("backup", "list"), ("restore", "latest")):
            began = time.monotonic()
            ended = busy.run(*command, environment=busy.target() if "restore" in command else {})
            assert ended.returncode == UNREACHABLE, ended.stderr
            assert time.monotonic() - began < 90


def test_a_bucket_that_is_not_there_or_not_ours(remote: Depot, s3: S3Server) -> None:
    missing = replace(remote, backups="s3://missing-bucket/x")
    assert missing.run("backup", "create").returncode == UNREACHABLE
    refused = replace(remote, extra={**remote.extra, "AWS_SECRET_ACCESS_KEY": SECRET})
    ended = refused.run("backup", "create")
    assert ended.returncode == REFUSED
    assert SECRET not in ended.stdout + ended.stderr
    assert s3.access_key not in ended.stdout + ended.stderr


def test_killed_while_it_writes_to_a_bucket(remote: Depot, s3: S3Server) -> None:
    first = remote.create()
    began = time.monotonic()
    remote.create("--full")
    seconds = time.monotonic() - began
    for part in (0.4, 0.6, 0.8):
        ended = remote.run("backup", "create", "--full", after_s=seconds * part)
        assert ended.returncode in (-signal.SIGKILL, 0)
        assert remote.verified(first).problems == []
    # Its marker does not count: the process has gone.
    remote.create("--full")
    assert _remote_leftovers(remote, s3) == set()
    ended = remote.run("backup", "create", "--full", after_s=seconds * 0.7, number=signal.SIGTERM)
    assert ended.returncode in (143, 0)
    assert _remote_leftovers(remote, s3) == set()
    remote.done("backup", "prune", "--keep-last", "1")
    assert len(remote.names()) == 1
    assert _remote_leftovers(remote, s3) == set()
    remote.check_sound()


def test_stopped_while_the_second_process_writes_a_pack(remote: Depot, s3: S3Server) -> None:
    process: subprocess.Popen[bytes] | None = None
    begun = threading.Event()

    def answers(request: Request) -> None:
        if request.method == "PUT" and request.path.endswith("/00001.tar"):
            begun.wait(60)
            assert process is not None
            process.terminate()
            # Long enough for the first process to give up while this is still on its way.
            time.sleep(1)

    with forwarder(_port(s3), answers) as front:
        slow = _at(remote, front.port)
        process = subprocess.Popen(
            _program(slow, "backup", "create"),
            env=clean_environment(**slow.environment),
            cwd=slow.place.project,
        )
        begun.set()
        assert process.wait(120) == 143
    assert _remote_leftovers(remote, s3) == set()


def test_the_marker_of_somebody_else(remote: Depot) -> None:
    files = remote.shelf().files
    ours = {"by": "backup create on host", "machine": "other", "process": 1, "token": "x"}
    for marker, code in (
        ({**ours, "at_s": time.time()}, BUSY),
        ({**ours, "at_s": time.time() - 3_600}, 0),
        ({**ours, "at_s": time.time(), "machine": _machine(), "process": 2**22 + 1}, 0),
        ({**ours, "at_s": time.time(), "machine": _machine(), "process": os.getppid()}, BUSY),
        (["nonsense"], 0),
    ):
        files.write(MARKER, json.dumps(marker).encode())
        ended = remote.run("backup", "create")
        assert ended.returncode == code, (marker, ended.stderr)
        if code:
            assert "backup create on host" in ended.stderr


# --- Secrets -------------------------------------------------------------------------------------


def _insert(depot: Depot, table: str, **values: object) -> None:
    """A row with something in every column that has to have something."""
    from tests.support.stores import open_store

    with open_store(depot.uri).begin() as connection:
        for _, name, kind, has_to, default, _ in connection.exec_driver_sql(
            f"PRAGMA table_info({table})"
        ):
            if has_to and default is None and name not in values:
                values[name] = 0 if "INT" in kind else b"x" if "B" in kind[:2] else "{}"
        marks = ", ".join("?" for _ in values)
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608
            tuple(values.values()),
        )


def test_no_credential_is_in_the_archive_or_said(
    remote: Depot, s3: S3Server, postgres: Postgres, tmp_path: Path
) -> None:
    encrypted = b"\x00encrypted\xff"
    _insert(remote, "secrets", secret_id="s", secret_name="n", encrypted_value=encrypted)
    remote.create()
    uri = postgres.new_database().replace("://postgres:", f"://postgres:{SECRET}", 1)
    if SECRET not in uri:
        uri = postgres.new_database().replace("://postgres@", f"://postgres:{SECRET}@", 1)
    assert SECRET in uri
    target = {**remote.target(), STORE: uri}
    outputs = [remote.done("restore", "latest", "-vv", "--json", **target)]
    local = {BACKUPS: str(tmp_path / "local")}
    made = [
        remote.done("backup", "create", "-vv", "--json", **target, **place) for place in (local, {})
    ]
    warnings = " ".join(made[0].report["warnings"])
    assert "MLFLOW_CRYPTO_KEK_PASSPHRASE" in warnings
    outputs += [*made, remote.run("backup", "create", environment={**target, **local})]
    outputs.append(remote.run("restore", "latest", environment={**target, **local}))
    secrets = (SECRET, s3.secret_key, s3.access_key)
    for ended in outputs:
        for secret in secrets:
            assert secret not in ended.stdout + ended.stderr
    import gzip

    for path in (tmp_path / "local").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            text = gzip.decompress(content) if path.suffix == ".gz" else content
            assert not [secret for secret in secrets if secret.encode() in text], path
    import base64

    (file,) = (tmp_path / "local").glob(f"{made[0].report['backup']}/tables/backend/secrets.*")
    assert base64.b64encode(encrypted) in gzip.decompress(file.read_bytes())
