"""`ae5 release` and `ae5 rollback`: the whole way on a cluster that is strict, and again."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_server.ae5.build import make_release, write_release
from mlflow_server.ae5.contents import PROJECT
from mlflow_server.ae5.customise import Customisation
from tests.conftest import Postgres
from tests.integration.test_ae5_upload import mounted, report, run
from tests.standins.ae5.cluster import READER, Cluster
from tests.standins.ae5.faults import Fault
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.plugin import ae5_program as ae5_program
from tests.standins.ae5.program import Program
from tests.standins.ae5.tiny import PROJECT as TINY
from tests.standins.ae5.tiny import make_archive
from tests.support import forks
from tests.support.old_store_at import put_old_store
from tests.support.programs import REPOSITORY, clean_environment

ENDPOINT = "mlflow"
WORD = "planted-in-release-S3cret"
pytestmark = [pytest.mark.xdist_group("ae5-release"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two releases of this repository that differ in a variable."""
    made = []
    for value in ("1", "2"):
        release = make_release(REPOSITORY, Customisation({"WHICH": value}))
        made.append(write_release(release, tmp_path_factory.mktemp("release")))
    return made[0], made[1]


@pytest.fixture
def site(ae5_program: Program, tmp_path: Path) -> list[str]:
    """Options that say what a site wants, with data outside of the project."""
    file = tmp_path / "release.yml"
    file.write_text(
        f"share:\n  users: [{READER}]\n"
        'schedules:\n  gc:\n    cron: "0 3 * * *"\n  backup:\n    cron: "0 4 * * *"\n'
        f"    variables:\n      TRACKING_SERVER_BACKUPS: {tmp_path}/backups\n"
    )
    values = tmp_path / "production.env"
    values.write_text(
        f"MLFLOW_BACKEND_STORE_URI=sqlite:///{tmp_path}/data/store.db\n"
        f"MLFLOW_ARTIFACTS_DESTINATION={tmp_path}/data/artifacts\n"
        f"AWS_SECRET_ACCESS_KEY={WORD}\n"
    )
    values.chmod(0o600)
    return ["--release-file", str(file), "--values-file", str(values)]


def new_steps(done: dict[str, object]) -> list[str]:
    """The steps that were taken, or would be."""
    items = done["items"]
    assert isinstance(items, list)
    return [item["name"] for item in items if item["facts"]["is_new"]]


def changes(cluster: Cluster) -> list[str]:
    """The calls that changed something."""
    return [
        f"{each.method} {each.path}"
        for each in cluster.calls
        if each.method in ("POST", "PUT", "PATCH", "DELETE")
        and "/auth/" not in each.path
        and not each.path.endswith("/token")
    ]


def test_the_whole_way_and_again(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    release = ("release", str(archives[0]), *site)
    planned = report(ae5_program, *release, "--dry-run")
    all_steps = [
        "upload", "secrets", "deploy", "token", "share", "schedule:gc", "schedule:backup",
        "smoke-test",
    ]  # fmt: skip
    assert new_steps(planned) == all_steps
    assert changes(ae5_cluster) == []
    before = len(ae5_program.calls)
    told = run(ae5_program, *release)
    assert len(ae5_program.calls) - before <= 25
    assert f"{ae5_cluster.url(ENDPOINT)}: " in told.stdout
    assert "is in service" in told.stdout
    assert "smoke-test: done" in told.stderr
    (deployment,) = ae5_cluster.deployments
    assert sorted(job.name for job in ae5_cluster.jobs) == ["mlflow-backup", "mlflow-gc"]
    assert mounted(ae5_cluster)["MLFLOW_TRACKING_TOKEN"] == deployment.token
    assert [each["id"] for each in deployment.collaborators] == [READER]

    calls, changed = len(ae5_program.calls), changes(ae5_cluster)
    again = report(ae5_program, *release)
    assert new_steps(again) == []
    assert len(ae5_program.calls) - calls <= 8
    assert again["ae5_calls"] == len(ae5_program.calls) - calls
    assert changes(ae5_cluster) == changed
    assert (ae5_cluster.deployments, len(ae5_cluster.jobs)) == ([deployment], 2)


def test_another_release_and_back(
    ae5_program: Program,
    ae5_cluster: Cluster,
    archives: tuple[Path, Path],
    site: list[str],
    tmp_path: Path,
) -> None:
    first, second = (("release", str(path), *site) for path in archives)
    run(ae5_program, *first)
    (old,) = ae5_cluster.deployments
    shared_by_hand = ("share", "--everyone", *site[:2])
    run(ae5_program, *shared_by_hand)
    refused = run(ae5_program, "rollback", *site[:2], code=69)
    assert "there is no release before it" in refused.stderr

    planned = report(ae5_program, *second, "--dry-run")
    assert new_steps(planned) == [
        "upload", "schema", "keep", "take-over", "deploy", "rename", "token", "share",
        "schedule:gc", "schedule:backup", "smoke-test",
    ]  # fmt: skip
    told = {item["name"]: item["detail"] for item in planned["items"]}
    assert "job mlflow-gc is deleted" in told["take-over"]
    assert ae5_cluster.deployments == [old]
    run(ae5_program, *second)
    (new,) = ae5_cluster.deployments
    assert (new.id != old.id, new.endpoint) == (True, ENDPOINT)
    assert new.project.name == PROJECT
    assert names_and_tags(ae5_cluster) == {
        PROJECT: new.project.revisions[-1].name,
        f"{PROJECT}-before": old.project.revisions[-1].name,
    }
    assert {job.project.id for job in ae5_cluster.jobs} == {new.project.id}
    assert mounted(ae5_cluster)["MLFLOW_TRACKING_TOKEN"] == new.token
    # Who could open it by hand can again.
    assert {each["id"] for each in new.collaborators} == {READER, "everyone"}
    assert new_steps(report(ae5_program, *second)) == []

    assert "take-over" in new_steps(report(ae5_program, "rollback", *site[:2], "--dry-run"))
    assert ae5_cluster.deployments == [new]
    run(ae5_program, "rollback", *site[:2])
    (back,) = ae5_cluster.deployments
    assert names_and_tags(ae5_cluster) == {
        PROJECT: old.project.revisions[-1].name,
        f"{PROJECT}-before": new.project.revisions[-1].name,
    }
    assert (back.project.name, back.endpoint) == (PROJECT, ENDPOINT)
    assert new_steps(report(ae5_program, *first)) == []

    # A database of a later release: nothing is stopped, and nothing is lost.
    store = tmp_path / "data/store.db"
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    refused = run(ae5_program, "rollback", *site[:2], code=4)
    assert "the database has the schema of another release" in refused.stderr
    assert ae5_cluster.deployments == [back]


def test_back_from_a_release_that_does_not_start(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    first, second = (("release", str(path), *site) for path in archives)
    run(ae5_program, *first)
    ae5_cluster.faults.failing_deployments = 1
    assert "did not start (failed)" in run(ae5_program, *second, code=1).stderr
    told = run(ae5_program, "rollback", *site[:2])
    assert "is in service" in told.stdout
    (deployment,) = ae5_cluster.deployments
    assert deployment.project.name == PROJECT
    assert sorted(names_and_tags(ae5_cluster)) == [PROJECT, f"{PROJECT}-before"]
    assert len(ae5_cluster.jobs) == 2
    assert new_steps(report(ae5_program, *first)) == []
    # And forth again, where it is started now.
    run(ae5_program, "rollback", *site[:2])
    assert new_steps(report(ae5_program, *second)) == []


def names_and_tags(cluster: Cluster) -> dict[str, str]:
    """Of all projects."""
    return {project.name: project.revisions[-1].name for project in cluster.projects}


def test_the_project_of_somebody_else_and_an_old_database(
    ae5_program: Program,
    ae5_cluster: Cluster,
    archives: tuple[Path, Path],
    site: list[str],
    tmp_path: Path,
) -> None:
    """Moving over: another project has the endpoint, and its database is MLflow 2.22's."""
    upgraded = tmp_path / "upgraded-by-them"
    commands = {
        "TrackingServer": TINY["commands"]["Server"],
        "DatabaseUpgrade": {"unix": f"touch {upgraded}"},
        "GarbageCollection": {"unix": "exit 0"},
    }
    tiny = make_archive(tmp_path / "tiny.tar.gz", {**TINY, "commands": commands})
    for call in (
        ("project", "upload", str(tiny), "--name", "theirs"),
        ("project", "deploy", "theirs", "--name", "server", "--endpoint", ENDPOINT, "--private"),
        ("job", "create", "theirs", "--name", "their-gc", "--command", "GarbageCollection",
         "--no-run",
         "--schedule", "0 3 * * *"),
    ):  # fmt: skip
        assert ae5_program.run(*call).returncode == 0
    (theirs,) = ae5_cluster.deployments
    store = tmp_path / "data/store.db"
    store.parent.mkdir()
    shutil.copy(REPOSITORY / "tests/data/old-stores/mlflow-2.22.1.db", store)
    release = ["release", str(archives[0]), *site]
    refused = run(ae5_program, *release, code=2)
    assert "project theirs: is in the way, and no release of this project" in refused.stderr
    release.append("--replace")
    refused = run(ae5_program, *release, code=4)
    assert "the database has to be upgraded for this release" in refused.stderr
    assert ae5_cluster.deployments == [theirs]
    assert theirs.state == "started"
    told = run(ae5_program, *release, "--upgrade")
    assert "upgrading the database" in told.stderr
    assert sorted(names_and_tags(ae5_cluster)) == [PROJECT, f"{PROJECT}-before"]
    assert sorted(job.name for job in ae5_cluster.jobs) == ["mlflow-backup", "mlflow-gc"]
    with contextlib.closing(sqlite3.connect(store)) as connection:
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    assert runs > 0
    assert new_steps(report(ae5_program, *release)) == []
    # Back as the runbook has it: the smoke test has written rows since.
    run(ae5_program, "retire", "--yes", *site[:2])
    undo = ["run", "upgrade", "--variable", "TRACKING_SERVER_UNDO=true", *site[:2]]
    told = run(ae5_program, *undo, code=1).stdout
    assert "rows were written since the upgrade" in told
    for name in ("TRACKING_SERVER_DISCARD_CHANGES", "TRACKING_SERVER_YES"):
        undo += ["--variable", f"{name}=true"]
    run(ae5_program, *undo)
    # At theirs, whose commands are not tried.
    told = run(ae5_program, "rollback", *site[:2], code=69).stderr
    assert "what answers is no MLflow server" in told
    (theirs,) = ae5_cluster.deployments
    assert theirs.project.revisions[-1].name == "0.0.1"
    assert not upgraded.exists()


def test_the_backup_of_an_upgrade_has_to_outlive_its_pod(
    ae5_program: Program,
    ae5_cluster: Cluster,
    archives: tuple[Path, Path],
    site: list[str],
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    tiny = make_archive(tmp_path / "tiny.tar.gz")
    for call in (
        ("project", "upload", str(tiny), "--name", "theirs"),
        ("project", "deploy", "theirs", "--name", "server", "--endpoint", ENDPOINT, "--private"),
    ):
        assert ae5_program.run(*call).returncode == 0
    uri = put_old_store("2.22.1", tmp_path, postgres)
    Path(site[3]).write_text(
        f"MLFLOW_BACKEND_STORE_URI={uri}\nMLFLOW_ARTIFACTS_DESTINATION={tmp_path}/artifacts\n"
    )
    release = ("release", str(archives[0]), *site, "--replace", "--upgrade")
    refused = run(ae5_program, *release, code=2)
    assert "TRACKING_SERVER_BACKUP_FOLDER: is not set" in refused.stderr
    assert [each.state for each in ae5_cluster.deployments] == ["started"]
    file = Path(site[1])
    variables = f"TRACKING_SERVER_BACKUP_FOLDER: {tmp_path}/upgrades"
    file.write_text(f"{file.read_text()}upgrade:\n  variables:\n    {variables}\n")
    run(ae5_program, *release)
    assert list((tmp_path / "upgrades").iterdir())
    assert new_steps(report(ae5_program, *release)) == []


def test_changed_wishes_start_it_anew(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    release = ("release", str(archives[0]), *site)
    run(ae5_program, *release)
    (first,) = ae5_cluster.deployments
    values = Path(site[3])
    values.write_text(values.read_text() + "MLFLOW_TRACKING_GC_TTL=7d0h0m0s\n")
    planned = {item["name"]: item["detail"] for item in report(ae5_program, *release)["items"]}
    assert planned["secrets"] == "MLFLOW_TRACKING_GC_TTL"
    (second,) = ae5_cluster.deployments
    assert second.id != first.id
    file = Path(site[1])
    file.write_text(file.read_text() + "resource_profile: large\n")
    assert new_steps(report(ae5_program, *release)) == ["deploy", "token", "share", "smoke-test"]
    assert ae5_cluster.deployments[0].resource_profile == "large"
    # Without what this machine remembers, secrets are set once more, and it is started anew.
    shutil.rmtree(Path(ae5_program.environment["HOME"]) / ".local")
    assert new_steps(report(ae5_program, *release)) == [
        "secrets", "deploy", "token", "share", "smoke-test",
    ]  # fmt: skip


def test_a_backup_is_restored_before_the_first_start(
    ae5_program: Program,
    ae5_cluster: Cluster,
    archives: tuple[Path, Path],
    site: list[str],
    tmp_path: Path,
) -> None:
    """Database and artifacts are lost; everything else of the site is there still."""
    release = ["release", str(archives[0]), *site]
    run(ae5_program, *release)
    run(ae5_program, "run", "backup", *site[:2])
    refused = run(ae5_program, *release, "--restore", "latest", code=2)
    assert "a server runs; a backup is restored before" in refused.stderr
    run(ae5_program, "retire", "--yes", *site[:2])
    (tmp_path / "data").rename(tmp_path / "lost")
    file = Path(site[1])
    variables = f"TRACKING_SERVER_BACKUPS: {tmp_path}/backups"
    file.write_text(f"{file.read_text()}restore:\n  variables:\n    {variables}\n")
    release += ["--restore", "latest"]
    # Not what is there of it, and not what was said: nothing is started on an empty database.
    failed = run(ae5_program, *release[:-1], "20200101T000000Z", code=1)
    assert "20200101T000000Z: was not restored" in failed.stderr
    assert ae5_cluster.deployments == []
    assert new_steps(report(ae5_program, *release)) == [
        "restore", "deploy", "token", "share", "schedule:gc", "schedule:backup", "smoke-test",
    ]  # fmt: skip
    # What the smoke tests left: an experiment each, deleted; the first one is the backup's.
    with contextlib.closing(sqlite3.connect(tmp_path / "data/store.db")) as connection:
        query = "SELECT count(*) FROM experiments WHERE name LIKE 'smoke test of %'"
        assert connection.execute(query).fetchone() == (2,)
    run(ae5_program, "retire", "--yes", *site[:2])
    # Somebody has restored it already: never over what is there.
    failed = run(ae5_program, *release, code=1)
    assert "the same without --restore" in failed.stderr
    assert "the store is not empty" in failed.stderr


def test_what_is_missing_is_told_before_anything_is_done(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    refused = run(ae5_program, "release", str(archives[0]), *site[:2], code=2)
    assert "secret MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION: is missing" in (
        refused.stderr
    )
    assert changes(ae5_cluster) == []


def started(program: Program, *arguments: str) -> subprocess.Popen[str]:
    """A command of ours that has begun; what it says on stderr can be read."""
    return forks.Popen(
        [sys.executable, "-m", "mlflow_server", "ae5", *arguments],
        env=clean_environment(**program.environment),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after_each_step(program: Program, *arguments: str) -> list[str]:
    """Kill a command after its first step, the next one after its, and so on to the end."""
    killed: list[str] = []
    for _ in range(20):
        with started(program, *arguments) as process:
            assert process.stderr is not None
            done = (re.match(r"([\w:-]+): done", line) for line in process.stderr)
            for step in (found[1] for found in done if found):
                if step == "schema" and step in killed:
                    continue  # asks only, each time anew
                assert step not in killed, f"{step} was done twice"
                killed.append(step)
                process.kill()
                break
        # After its last step it may have ended before it could be killed.
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL
    raise AssertionError(f"it does not come to an end: {killed}")


def test_killed_after_each_step_and_run_again(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    first, second = (("release", str(path), *site) for path in archives)
    assert kill_after_each_step(ae5_program, *first) == [
        "upload", "secrets", "deploy", "token", "share", "schedule:gc", "schedule:backup",
        "smoke-test",
    ]  # fmt: skip
    assert len(ae5_cluster.deployments) == 1
    assert new_steps(report(ae5_program, *first)) == []
    # Who could open the one before can open it since its start.
    assert kill_after_each_step(ae5_program, *second) == [
        "upload", "schema", "keep", "take-over", "deploy", "rename", "token", "schedule:gc",
        "schedule:backup", "smoke-test",
    ]  # fmt: skip
    back = ("rollback", *site[:2])
    assert "take-over" in kill_after_each_step(ae5_program, *back)
    assert new_steps(report(ae5_program, *first)) == []
    assert sorted(names_and_tags(ae5_cluster)) == [PROJECT, f"{PROJECT}-before"]
    assert len(ae5_cluster.jobs) == 2


def test_broken_off_in_the_middle_of_each_change(
    ae5_program: Program, ae5_cluster: Cluster, archives: tuple[Path, Path], site: list[str]
) -> None:
    first, second = (("release", str(path), *site) for path in archives)
    run(ae5_program, *first)
    (old,) = ae5_cluster.deployments
    for is_refused, method, path in (
        (True, "POST", "/api/v2/projects/upload"),
        (False, "DELETE", "/api/v2/jobs/*"),
        (False, "DELETE", "/api/v2/deployments/*"),
        (True, "DELETE", "/api/v2/projects/*"),
        (False, "DELETE", "/api/v2/projects/*"),
        (True, "POST", "/api/v2/projects/*/deployments"),
        (False, "POST", "/api/v2/projects/*/deployments"),
        (True, "POST", "/api/v2/deployments/*/token"),
        (False, "PATCH", "/api/v2/projects/*"),
        (False, "POST", "/api/v2/credentials/user"),
        (False, "POST", "/api/v2/projects/*/jobs"),
        (True, "PUT", f"{ENDPOINT}/api/2.0/mlflow-artifacts/*"),
    ):
        if is_refused:
            fault = ae5_cluster.faults.answer(500, method, path, times=None)
            told = run(ae5_program, *second, code=None).stderr
            assert told.count("Error: ") == 1
        else:
            fault = ae5_cluster.faults.slow(1, method, path)
            kill_at(ae5_program, fault, *second)
        assert fault.hits > 0, path
        ae5_cluster.faults.clear()
    run(ae5_program, *second)
    assert sorted(names_and_tags(ae5_cluster)) == [PROJECT, f"{PROJECT}-before"]
    assert {each["id"] for each in ae5_cluster.deployments[0].collaborators} == {READER}
    assert sorted(job.name for job in ae5_cluster.jobs if job.schedule) == [
        "mlflow-backup", "mlflow-gc",
    ]  # fmt: skip
    assert new_steps(report(ae5_program, *second)) == []
    assert old.id not in [each.id for each in ae5_cluster.deployments]


def kill_at(program: Program, fault: Fault, *arguments: str) -> None:
    """Run a command, and kill it while the platform does what it was asked."""
    with started(program, *arguments) as process:
        deadline = time.monotonic() + 120
        while not fault.hits and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    time.sleep(fault.slow_s)


def test_no_secret_is_anywhere(
    ae5_program: Program,
    ae5_cluster: Cluster,
    archives: tuple[Path, Path],
    site: list[str],
    tmp_path: Path,
) -> None:
    told = run(ae5_program, "release", str(archives[0]), *site)
    (deployment,) = ae5_cluster.deployments
    for secret in (WORD, deployment.token):
        assert secret not in told.stdout + told.stderr
        assert secret not in ae5_cluster.log
        assert secret not in json.dumps(ae5_program.calls)
        for path in tmp_path.rglob("*"):
            if path.is_file() and "secrets" not in path.parts and path != Path(site[3]):
                assert secret.encode() not in path.read_bytes(), path
    (memory,) = (tmp_path / "ae5-home/.local/state/mlflow-tracking-server/ae5").iterdir()
    assert memory.stat().st_mode & 0o777 == 0o600
