"""`gc` on real stores: exactly what should go is gone, rows and files, whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.support.forks import serve
from tests.support.gc_place import (
    EXPERIMENTS,
    GONE_MODELS,
    GONE_RUNS,
    KILLED,
    MODELS,
    RUNS,
    Made,
    Yard,
)
from tests.support.mariadb import MARIADB
from tests.support.places import snapshot
from tests.support.programs import DESTINATION, clean_environment, http
from tests.support.s3 import S3Server
from tests.support.stores import OLD_STORE, open_store

API = "/api/2.0/mlflow"

ALL = pytest.mark.parametrize("yard", ["sqlite", "postgresql", MARIADB], indirect=True)
SERVERS = pytest.mark.parametrize("yard", ["postgresql", MARIADB], indirect=True)
pytestmark = pytest.mark.xdist_group("gc")


@ALL
def test_exactly_what_is_old_and_not_needed_goes(yard: Yard) -> None:
    planned = yard.report("--dry-run")
    report = yard.report()
    yard.check_collected()
    assert report["purged"] == {"run": 4, "logged_model": 2, "experiment": 1}
    assert report["freed"]["files"] == 2 * len(GONE_RUNS) + len(GONE_MODELS)
    assert [item["facts"] for item in planned["items"]] == [
        item["facts"] for item in report["items"]
    ]
    assert yard.query("SELECT name FROM datasets ORDER BY name") == ["shared"]
    again = yard.report()
    assert (again["purged"], again["freed"]["files"]) == ({}, 0)


@ALL
def test_dry_run_says_why_things_stay_and_changes_nothing(yard: Yard) -> None:
    before = snapshot(yard.place.root)
    report = yard.report("--dry-run")
    assert snapshot(yard.place.root) == before
    facts = {item["name"]: item["facts"] for item in report["items"]}
    assert facts["run"]["staying"] == {"younger": 1, "referenced": 1, "unknown_age": 1}
    assert facts["logged_model"]["staying"] == {"referenced": 1}
    assert facts["experiment"] == {"going": 1, "staying": {"holds_active_run": 1}}
    assert "tracking_server_gc_journal" not in _tables(yard)


def _tables(yard: Yard) -> list[str]:
    return sqlalchemy.inspect(open_store(yard.uri)).get_table_names()


def test_nothing_to_do_leaves_the_store_byte_equal_and_no_lock_file(yard: Yard) -> None:
    before = snapshot(yard.place.root)
    report = yard.report("--older-than", "3650d")
    assert report["purged"] == {}
    assert snapshot(yard.place.root) == before


def test_nothing_to_do_is_found_out_without_mlflow(yard: Yard) -> None:
    program = (
        "import sys; from mlflow_server.cli.main import main\n"
        "try:\n main(['gc', '--older-than', '3650d'])\n"
        "finally:\n print('mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(**yard.environment),
        cwd=yard.place.project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr


def test_what_was_asked_for_goes_as_well(yard: Yard) -> None:
    report = yard.report("--include-referenced", "--include-unknown-age", "--older-than", "0s")
    assert report["purged"]["run"] == 7
    assert yard.left()[0] == {"active", "held-active"}
    assert yard.with_files() == {"active", "held-active", "model-active"}


@ALL
def test_an_experiment_whose_scorer_a_guardrail_uses_stays(yard: Yard) -> None:
    gone = yard.ids["gone"]
    for statement in (
        f"INSERT INTO scorers VALUES ({gone}, 'safe', 's1')",  # noqa: S608
        "INSERT INTO scorer_versions VALUES ('s1', 1, '{}', 0)",
        "INSERT INTO guardrails (guardrail_id, name, scorer_id, scorer_version, stage, action, "
        "created_at, last_updated_at) VALUES ('g1', 'g', 's1', 1, 'BEFORE', 'BLOCK', 0, 0)",
    ):
        yard.query(statement)
    report = yard.report()
    facts = {item["name"]: item["facts"] for item in report["items"]}
    assert facts["experiment"]["staying"] == {"holds_active_run": 1, "holds_scorer": 1}
    assert yard.left()[0] == RUNS - GONE_RUNS, "its old deleted runs go all the same"
    assert yard.left()[2] == EXPERIMENTS


@ALL
def test_named_ids_mean_exactly_these(yard: Yard) -> None:
    yard.report("--run-ids", yard.ids["old"])
    assert yard.left() == (RUNS - {"old"}, MODELS, EXPERIMENTS)
    yard.report("--logged-model-ids", yard.ids["model-old"])
    assert yard.left() == (RUNS - {"old"}, MODELS - {"model-old"}, EXPERIMENTS)
    yard.report("--experiment-ids", yard.ids["gone"])
    runs, models, experiments = yard.left()
    assert runs == RUNS - {"old", "gone-1", "gone-2"}
    assert (models, experiments) == (MODELS - GONE_MODELS, EXPERIMENTS - {"gone"})


def test_age_and_references_count_for_named_ids_too(yard: Yard) -> None:
    named = ",".join(yard.ids[name] for name in ("young", "needed", "unknown"))
    assert yard.report("--run-ids", named)["purged"] == {}
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)
    held = yard.ids["held"]
    assert yard.report("--dry-run", "--experiment-ids", held)["experiments"][0]["going"] == {}
    assert yard.report("--experiment-ids", held)["purged"] == {}
    both = ("--experiment-ids", held, "--run-ids", yard.ids["held-old"])
    assert yard.report(*both)["purged"] == {"run": 1}


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--run-ids", "f" * 32, "there is no run"),
        ("--run-ids", "active", "is not deleted"),
        ("--experiment-ids", "4711", "there is no experiment 4711"),
        ("--experiment-ids", "stays", "is not deleted"),
        ("--experiment-ids", "9" * 20, "no experiment has a number that large"),
        ("--experiment-ids", "one", "not a list of numbers"),
        ("--logged-model-ids", "model-active", "is not deleted"),
        ("--run-ids", "", "empty"),
        ("--run-ids", "a,,b", "empty"),
        ("--older-than", "soon", "duration"),
        ("--older-than", "30", "duration"),
        ("--older-than", "-1d", "duration"),
        ("--older-than", "", "duration"),
    ],
)
def test_bad_options_touch_nothing(yard: Yard, option: str, name: str, words: str) -> None:
    before = snapshot(yard.place.root)
    ended = yard.gc(option, yard.ids.get(name, name))
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert snapshot(yard.place.root) == before


def test_one_wrong_id_keeps_the_right_ones_from_going(yard: Yard) -> None:
    ended = yard.gc("--run-ids", f"{yard.ids['old']},{yard.ids['active']},{'e' * 32}")
    assert ended.returncode == 2
    assert yard.ids["active"] in ended.stderr
    assert "e" * 32 in ended.stderr
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)


def test_every_table_that_leads_to_what_is_deleted_is_thought_of(on_sqlite: Made) -> None:
    """A new release of MLflow may bring a table whose rows hold an entity, or go with it."""
    from mlflow_server.gc import rows

    statements = (
        *rows._RUN_ROWS,
        *rows._MODEL_ROWS,
        *rows._TRACE_ROWS,
        *rows._EXPERIMENT_ROWS,
    )
    handled = {re.split(r"[ ]", statement)[2 if "DELETE" in statement[:6] else 1]
               for statement in statements}  # fmt: skip
    handled |= {"runs", "logged_models", "trace_info"}
    path = on_sqlite.uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master "
                                                       "WHERE type = 'table'")]  # fmt: skip
        parents = {
            table: {row[2] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
            for table in tables
        }
    # A guardrail that uses a scorer keeps its experiment: the database refuses, nothing is lost.
    not_ours = {"guardrails", "guardrail_configs", "endpoints"}
    entities = {"runs", "experiments", "logged_models", "trace_info"}
    below = set(entities)
    while more := {t for t, found in parents.items() if found & below} - below - not_ours:
        below |= more
    # Endpoints only lose their experiment; what hangs on them stays.
    assert below - handled - {"endpoint_bindings", "endpoint_model_mappings"} == set()
    assert handled - set(tables) == set()


# --- Whatever happens meanwhile ----------------------------------------------------------------

# Runs the command, and restores something before a step: the first transaction, or its locks.
_RESTORED = """
import sqlalchemy
import mlflow_server.gc.batches as batches

holder = {holder}
step = holder.{name}

def restore_first(*args):
    engine = sqlalchemy.create_engine("{uri}".replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("{statement}"))
    return step(*args)

holder.{name} = restore_first
from mlflow_server.cli.main import main
main(["gc"])
"""
# Runs the command, and tries to register a version from a run that is just being judged.
_REGISTERED = """
import sqlalchemy
from mlflow_server.gc.entities import Entities

candidates = Entities.candidates

def register_first(*args):
    page = candidates(*args)
    engine = sqlalchemy.create_engine("{uri}".replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("{patience}"))
        try:
            connection.execute(sqlalchemy.text(
                "INSERT INTO model_versions (name, version, source, workspace) "
                "VALUES ('registered', 9, 'runs:/{run}/model', 'default')"))
        except sqlalchemy.exc.OperationalError as err:
            assert "lock" in str(err.orig).lower(), err
            print("refused")
            raise SystemExit(0)
    raise SystemExit("it was registered")

Entities.candidates = register_first
from mlflow_server.cli.main import main
main(["gc"])
"""
FAULTS = [
    ("mlflow_server.gc.journal", "create", 1, "after"),
    ("mlflow_server.gc.journal", "write_experiments", 1, "after"),
    ("mlflow_server.gc.rows", "delete_experiments", 1, "after"),
    ("mlflow_server.gc.ids", "Ids:execute", 8, "after"),
    ("mlflow_server.gc.files", "FileRemoval:_remove", 1, "before"),
    ("mlflow_server.artifacts.removal.local", "purge", 1, "before"),
    ("mlflow_server.artifacts.removal.local", "purge", 3, "after"),
    ("mlflow_server.gc.journal", "forget", 1, "before"),
    ("mlflow_server.gc.journal", "forget", 1, "after"),
]


@ALL
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault[1:])))
def test_killed_anywhere_and_run_again_it_ends_the_same(
    yard: Yard, fault: tuple[str, str, int, str]
) -> None:
    killed = yard.run_program(KILLED, *map(str, fault))
    assert killed.returncode == -9, killed.stderr
    runs, models, _ = yard.left()
    assert yard.with_files() >= runs | models, "whatever can be restored has its files"
    yard.report()
    yard.check_collected()


def test_another_operation_makes_it_wait_for_its_turn(yard: Yard) -> None:
    with _locked(yard.place.store.with_name(yard.place.store.name + ".lock")):
        ended = yard.gc()
        assert ended.returncode == 75
        assert "lock" in ended.stderr
        skipped = yard.gc("--skip-if-busy")
        assert (skipped.returncode, "skipped" in skipped.stdout) == (0, True)
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_volume_that_is_not_mounted_stops_it(yard: Yard, state: str) -> None:
    shutil.rmtree(yard.artifacts)
    if state == "empty":
        yard.artifacts.mkdir()
    ended = yard.gc()
    assert ended.returncode == 69
    assert "mounted" in ended.stderr
    assert "mounted" in yard.report("--dry-run")["warnings"][0]
    assert yard.left() == (RUNS, MODELS, EXPERIMENTS)
    yard.report("--allow-missing-destination")
    assert yard.left()[0] == RUNS - GONE_RUNS


@pytest.mark.parametrize("destination", ["hdfs://host/a", "ftp://host/a"])
def test_where_nothing_can_be_removed_no_row_goes(yard: Yard, destination: str) -> None:
    before = snapshot(yard.place.root)
    ended = yard.gc(**{DESTINATION: destination})
    assert ended.returncode == 78
    assert "gc cannot remove from it" in ended.stderr
    after = snapshot(yard.place.root)
    after.pop("project/store.sqlite.lock", None)
    assert after == before


def test_a_location_that_cannot_be_removed_is_tried_again(yard: Yard) -> None:
    """A link leads to somebody else's files; when it is a folder again, the next run removes it."""
    folder = yard.artifacts / yard.ids["stays"] / yard.ids["old"]
    elsewhere = yard.place.root / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    report = yard.report(code=3)
    (failed,) = [item for item in report["items"] if item["status"] == "failed"]
    assert yard.ids["old"] in failed["name"]
    assert "symbolic link" in failed["detail"]
    assert (elsewhere / "artifacts/größe.txt").exists()
    assert yard.left()[0] == RUNS - GONE_RUNS
    folder.unlink()
    elsewhere.rename(folder)
    assert yard.report()["freed"]["files"] == 2
    yard.check_collected()


@pytest.mark.parametrize("trash", [True, False], ids=["", "no room for the trash"])
def test_a_full_disk_is_a_reason_to_collect(yard: Yard, trash: bool) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounting is not allowed here")
    volume = yard.place.root / "volume"
    volume.mkdir()
    # As many inodes as there are files, or bytes: either is what a disk can run out of.
    count = sum(1 for _ in yard.artifacts.rglob("*"))
    limit = "size=512k" if trash else f"nr_inodes={count + 1}"
    script = (
        f"mount -t tmpfs -o {limit} tmpfs {volume} && cp -r {yard.artifacts}/. {volume} && "
        f"(head -c 1m /dev/zero > {volume}/filler 2> /dev/null; true) && "
        f'"$@" && ls -A {volume}'
    )
    command = [sys.executable, "-m", "mlflow_server", "gc"]
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command],
        env=clean_environment(**{**yard.environment, DESTINATION: str(volume)}),
        cwd=yard.place.project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert yard.left()[0] == RUNS - GONE_RUNS
    assert "Freed 10 files" in ended.stdout
    assert ".gc-trash" not in ended.stdout


def test_files_that_are_gone_already_are_no_failure(yard: Yard) -> None:
    shutil.rmtree(yard.artifacts / yard.ids["stays"] / yard.ids["old"])
    yard.report()
    yard.check_collected()


def test_a_location_outside_of_its_own_is_refused(yard: Yard) -> None:
    for uri in ("mlflow-artifacts:/", "mlflow-artifacts:/1", f"mlflow-artifacts:/../{'0' * 32}"):
        yard.query(
            "UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :id", uri=uri, id=yard.ids["old"]
        )
        copy = yard.place.root / "copy.sqlite"
        shutil.copy(yard.place.store, copy)
        ended = yard.gc("--json", "--backend-store-uri", f"sqlite:///{copy}", "--run-ids",
                        yard.ids["old"])  # fmt: skip
        assert ended.returncode == 3, (uri, ended.stderr)
        assert yard.with_files() == RUNS | MODELS


def test_old_schema_is_refused_untouched(yard: Yard) -> None:
    shutil.copy(OLD_STORE, yard.place.store)
    before = snapshot(yard.place.root)
    for options in ((), ("--dry-run",)):
        assert yard.gc(*options).returncode == 4
    assert snapshot(yard.place.root) == before


def test_missing_and_empty_stores_are_refused_untouched(yard: Yard) -> None:
    yard.place.store.unlink()
    before = snapshot(yard.place.root)
    assert yard.gc().returncode == 69
    assert snapshot(yard.place.root) == before
    yard.place.store.touch()
    before = snapshot(yard.place.root)
    assert yard.gc().returncode == 4
    assert snapshot(yard.place.root) == before


@ALL
@pytest.mark.parametrize("what", ["experiment", "run in it"])
def test_restored_while_it_works_it_stays_whole(yard: Yard, what: str) -> None:
    """The survey has seen it deleted; when its turn comes, it is not any more."""
    where = {
        "experiment": "experiments SET lifecycle_stage = 'active' WHERE experiment_id = {id}",
        "run in it": "runs SET lifecycle_stage = 'active' WHERE run_uuid = '{id}'",
    }
    entity = yard.ids["gone" if what == "experiment" else "gone-1"]
    statement = "UPDATE " + where[what].format(id=entity)
    step = {"holder": "batches.Batches", "name": "_purge_group"}
    done = yard.run_program(_RESTORED.format(uri=yard.uri, statement=statement, **step))
    assert done.returncode == 0, done.stderr
    runs, models, experiments = yard.left()
    assert "gone" in experiments
    if what == "experiment":
        # Its runs are as deleted as before, and old enough by themselves.
        assert models == MODELS - {"model-old"}
    else:
        assert "gone-1" in runs
        assert "gone-1" in yard.with_files()
        assert "gone-model" in models & yard.with_files()
    yard.check_rows()


@SERVERS
def test_restored_before_it_is_locked_it_stays_whole(yard: Yard) -> None:
    """The transaction has begun, and read: what it locks then is judged as it is by now."""
    run = yard.ids["gone-1"]
    statement = f"UPDATE runs SET lifecycle_stage = 'active' WHERE run_uuid = '{run}'"  # noqa: S608
    step = {"holder": "batches", "name": "_lock_experiments"}
    done = yard.run_program(_RESTORED.format(uri=yard.uri, statement=statement, **step))
    assert done.returncode == 0, done.stderr
    runs, models, experiments = yard.left()
    assert "gone-1" in runs & yard.with_files()
    assert "gone-model" in models & yard.with_files()
    assert "gone" in experiments
    yard.check_rows()


@SERVERS
def test_nobody_registers_a_version_from_what_is_going(yard: Yard) -> None:
    patience = "SET lock_timeout = '300ms'"
    if yard.uri.startswith("mysql"):
        patience = "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
    script = _REGISTERED.format(uri=yard.uri, run=yard.ids["old"], patience=patience)
    done = yard.run_program(script)
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["refused"]), done.stderr
    assert yard.left()[0] >= RUNS - {"gone-1", "gone-2"}, "the batch was taken back"


# --- Together with everything else -------------------------------------------------------------


@ALL
def test_beside_a_live_server_names_are_free_again(yard: Yard) -> None:
    with serve(yard.place.root / "server", environment=yard.environment) as server:

        def create() -> int:
            body = json.dumps({"name": "gone"}).encode()
            headers = {"Content-Type": "application/json"}
            url = f"{server.url}{API}/experiments/create"
            return http(url, method="POST", body=body, headers=headers).status

        assert create() == 400
        yard.report()
        assert create() == 200
        for name in RUNS - GONE_RUNS:
            answer = http(f"{server.url}{API}/runs/get?run_id={yard.ids[name]}")
            assert answer.status == 200, name
        for name in GONE_RUNS:
            answer = http(f"{server.url}{API}/runs/get?run_id={yard.ids[name]}")
            assert answer.status == 404, name


def test_a_registry_of_its_own_protects_as_well(yard: Yard) -> None:
    """The versions are in another database: without a look there, their files would go."""
    registry = yard.place.root / "registry.sqlite"
    shutil.copy(yard.place.store, registry)
    yard.query("DELETE FROM model_versions")
    ended = yard.gc(MLFLOW_REGISTRY_STORE_URI=f"sqlite:///{registry}")
    assert ended.returncode == 0, ended.stderr
    yard.check_collected()


@ALL
def test_artifacts_in_an_object_store(yard: Yard, s3: S3Server, bucket: str) -> None:
    with s3.administer() as client:
        for path in yard.artifacts.rglob("*"):
            if path.is_file():
                key = f"some/prefix/{path.relative_to(yard.artifacts)}"
                client.upload_file(str(path), bucket, key)
    environment = {**s3.environment, DESTINATION: f"s3://{bucket}/some/prefix"}
    ended = yard.gc("--json", **environment)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["freed"]["files"] == 2 * len(GONE_RUNS) + len(GONE_MODELS)
    there = {part for key in s3.content(bucket) for part in key.split("/")}
    left = {name for name, entity_id in yard.ids.items() if entity_id in there} - EXPERIMENTS
    assert left == (RUNS - GONE_RUNS) | (MODELS - GONE_MODELS)
    wrong = {**environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    yard.query("UPDATE runs SET deleted_time = 1 WHERE run_uuid = :id", id=yard.ids["unknown"])
    ended = yard.gc("--json", **wrong)
    assert ended.returncode == 77
    assert "wrong" not in ended.stdout
    assert "unknown" in yard.left()[0], "refused before any row was touched"
    assert json.loads(yard.gc("--json", **environment).stdout)["freed"]["files"] == 2
