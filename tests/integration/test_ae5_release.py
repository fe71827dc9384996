"""`ae5 release` and `ae5 rollback`: the whole way on a cluster that is strict, and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
