"""`ae5 deploy`, `url`, `token`, `restart`, `schedule` and `run`, against a cluster that is strict.

What is deployed is a release, and what runs are its own commands.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlflow_server.ae5.build import make_release, write_release
from mlflow_server.ae5.contents import PROJECT
from mlflow_server.ae5.customise import Customisation
from tests.integration.test_ae5_upload import mounted, report, run
from tests.standins.ae5.cluster import READER, Cluster
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.plugin import ae5_program as ae5_program
from tests.standins.ae5.program import Program
from tests.support.programs import REPOSITORY

ENDPOINT = "mlflow"
pytestmark = [pytest.mark.xdist_group("ae5"), pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of this repository."""
    release = make_release(REPOSITORY, Customisation())
    return write_release(release, tmp_path_factory.mktemp("release"))


@pytest.fixture
def uploaded(ae5_program: Program, archive: Path, tmp_path: Path) -> Program:
    """The program, when a release is there, and secrets that lead to data outside of it."""
    run(ae5_program, "upload", str(archive))
    typed = (
        f"MLFLOW_BACKEND_STORE_URI=sqlite:///{tmp_path}/data/store.db\n"
        f"MLFLOW_ARTIFACTS_DESTINATION={tmp_path}/data/artifacts\n"
    )
    run(ae5_program, "secrets", "set", "--values-file", "-", typed=typed)
    return ae5_program


def test_from_nothing_to_a_token_and_a_new_one(
    uploaded: Program, ae5_cluster: Cluster, tmp_path: Path
) -> None:
    planned = report(uploaded, "deploy", "--dry-run")["items"][0]
    assert (planned["detail"], planned["facts"]["id"]) == ("started", None)
    assert ae5_cluster.deployments == []
    ended = run(uploaded, "deploy")
    assert ended.stdout == f"{ae5_cluster.url(ENDPOINT)}: started, ready\n"
    assert "waiting for /readyz …" in ended.stderr
    (deployment,) = ae5_cluster.deployments
    assert not deployment.public
    again = report(uploaded, "deploy")["items"][0]
    assert again["detail"] == "is there already"
    assert ae5_cluster.deployments == [deployment]

    assert ae5_cluster.url(ENDPOINT) in run(uploaded, "url").stdout
    file = tmp_path / "mlflow.token"
    told = run(uploaded, "token", "--to-file", str(file))
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in told.stdout + told.stderr
    secrets = mounted(ae5_cluster)
    assert secrets["MLFLOW_TRACKING_TOKEN"] == token
    assert secrets["MLFLOW_TRACKING_URI"] == secrets["MLFLOW_REGISTRY_URI"]
    assert secrets["MLFLOW_TRACKING_URI"] == ae5_cluster.url(ENDPOINT)

    told = run(uploaded, "restart")
    assert "the token is another one" in told.stdout
    (restarted,) = ae5_cluster.deployments
    assert (restarted.id != deployment.id, restarted.endpoint) == (True, ENDPOINT)
    new = mounted(ae5_cluster)["MLFLOW_TRACKING_TOKEN"]
    assert new != token
    assert new not in told.stdout + told.stderr

    reader = ("--user", READER)
    assert "group everyone: to add" in run(uploaded, "share", "--everyone", "--dry-run").stdout
    assert report(uploaded, "share", "--everyone", *reader)["items"][0]["detail"] == "added"
    again = report(uploaded, "share", "--everyone", *reader)["items"]
    assert [item["detail"] for item in again] == ["is there already"] * 2
    run(uploaded, "share", code=2)

    # Its own check, as a job of the account: address, token, database and artifacts.
    done = run(uploaded, "run", "doctor")
    assert "ok   tracking-uri" in done.stdout
    assert "completed" in done.stderr
    assert ae5_cluster.jobs == []
    for call in uploaded.calls:
        assert token not in call
    assert token not in ae5_cluster.log

    run(uploaded, "schedule", "gc", "--cron", "0 3 * * *")
    well = report(uploaded, "status")["items"]
    assert [item["name"] for item in well] == [
        "deployment", "health", "schema", "project", "secrets", "schedule:mlflow-gc",
    ]  # fmt: skip
    # What runs elsewhere needs the jobs.
    elsewhere = report(uploaded, "retire", "--endpoint", "elsewhere", "--dry-run")
    assert elsewhere["items"] == []
    assert run(uploaded, "retire", "--dry-run").stdout.endswith("Nothing was changed.\n")
    assert "--yes" in run(uploaded, "retire", code=2).stderr
    assert len(ae5_cluster.deployments) == 1
    run(uploaded, "retire", "--yes")
    assert (ae5_cluster.deployments, ae5_cluster.jobs) == ([], [])
    assert "There is nothing to stop." in run(uploaded, "retire", "--yes").stdout
    bad = report(uploaded, "status", code=3)["items"]
    assert [item["name"] for item in bad if item["status"] == "failed"] == ["deployment"]


def test_a_deployment_that_does_not_start(uploaded: Program, ae5_cluster: Cluster) -> None:
    ae5_cluster.faults.failing_deployments = 1
    refused = run(uploaded, "deploy", code=1)
    assert "deployment mlflow: did not start (failed)" in refused.stderr
    ae5_cluster.faults.clear()
    for deployment in list(ae5_cluster.deployments):
        assert uploaded.run("deployment", "stop", deployment.name, "--yes").returncode == 0
    ae5_cluster.faults.stalled_deployments = 1
    began = time.monotonic()
    refused = run(uploaded, "deploy", "--wait-ready", "4", code=69)
    assert "deployment mlflow: is starting after 4 s" in refused.stderr
    assert time.monotonic() - began < 60


def test_an_endpoint_of_another_project(
    uploaded: Program, ae5_cluster: Cluster, archive: Path
) -> None:
    ae5_cluster.faults.stalled_deployments = 1
    run(uploaded, "deploy", "--wait-ready", "0", code=69)
    run(uploaded, "upload", str(archive), "--name", "other")
    refused = run(uploaded, "deploy", "--project", "other", code=2)
    assert f"endpoint {ENDPOINT}: deployment mlflow of project {PROJECT}" in refused.stderr
    assert len(ae5_cluster.deployments) == 1


def test_what_is_not_there(ae5_program: Program) -> None:
    assert (
        "project mlflow.tracking.server: is not there" in run(ae5_program, "deploy", code=69).stderr
    )
    for command in ("url", "token", "restart"):
        assert "nothing is deployed there" in run(ae5_program, command, code=69).stderr


def test_schedules(uploaded: Program, ae5_cluster: Cluster, tmp_path: Path) -> None:
    gc = ("schedule", "gc", "--cron", "*/10 * * * *")
    run(uploaded, *gc, "--dry-run")
    assert ae5_cluster.jobs == []
    assert report(uploaded, *gc)["items"][0]["detail"] == "made"
    (job,) = ae5_cluster.jobs
    assert (job.name, job.schedule) == ("mlflow-gc", "*/10 * * * *")
    assert report(uploaded, *gc)["items"][0]["detail"] == "is there already"
    assert ae5_cluster.jobs == [job]
    changed = (*gc[:-1], "0 * * * *", "--variable", "MLFLOW_TRACKING_GC_TTL=1d0h0m0s")
    assert report(uploaded, *changed)["items"][0]["detail"] == "made anew"
    (changed_job,) = ae5_cluster.jobs
    assert changed_job.id != job.id
    assert (changed_job.schedule, changed_job.variables) == (
        "0 * * * *", {"MLFLOW_TRACKING_GC_TTL": "1d0h0m0s"},
    )  # fmt: skip
    run(uploaded, "schedule", "gc", "--cron", "*/8 * * * *", code=2)
    run(uploaded, "schedule", "backup", code=2)
    run(uploaded, *gc, "--variable", "PGPASSWORD=planted-S3cret-of-jobs", code=2)
    # As the release file has it.
    file = tmp_path / "release.yml"
    file.write_text('schedules:\n  backup:\n    cron: "0 3 * * *"\n')
    run(uploaded, "schedule", "backup", "--release-file", str(file))
    listed = report(uploaded, "schedule", "list")["items"]
    assert [item["name"] for item in listed] == ["mlflow-gc", "mlflow-backup"]
    assert [item["detail"] for item in listed] == ["has not run yet"] * 2
    # There is no store yet: the run fails, and the list says so.
    ae5_cluster.wait_for(ae5_cluster.fire("mlflow-gc"), "failed", timeout=60)
    failed = report(uploaded, "schedule", "list", code=3)["items"][0]
    assert (failed["detail"], failed["status"]) == ("failed", "failed")


def test_a_job_that_fails_is_a_failure(uploaded: Program, ae5_cluster: Cluster) -> None:
    failed = run(uploaded, "run", "gc", code=1)
    assert "the file does not exist" in failed.stdout
    assert "job mlflow-gc-now: failed" in failed.stderr
    assert ae5_cluster.jobs == []
    run(uploaded, "run", "nonsense", code=2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("endpoint: bad_name\n", "endpoint: endpoint 'bad_name': is no DNS label"),
        ("schedules: {gc: {cron: '*/8 * * * *'}}\n", "schedules.gc.cron"),
        ("schedules: {serve: {cron: '0 * * * *'}}\n", "schedules.serve"),
        ("unknown: 1\n", "unknown: Extra inputs are not permitted"),
        ("variables: {PGPASSWORD: planted-S3cret-of-jobs}\n", "variables: "),
        ("[1, 2]\n", "the file"),
        ("{", "is not YAML"),
    ],
)
def test_a_release_file_that_is_wrong(
    ae5_program: Program, tmp_path: Path, content: str, told: str
) -> None:
    file = tmp_path / "release.yml"
    file.write_text(content)
    assert told in run(ae5_program, "deploy", "--release-file", str(file), code=78).stderr
    assert ae5_program.calls == []
