"""`ae5 upload` and `ae5 secrets`, against a cluster that is strict, by the program `ae5`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_server import __version__
from mlflow_server.ae5.build import Release, make_release, write_release
from mlflow_server.ae5.contents import PROJECT
from mlflow_server.ae5.customise import Customisation
from mlflow_server.ae5.projects import tag_of
from tests.standins.ae5.cluster import ADMIN, ADMIN_PASSWORD, USER, Cluster
from tests.standins.ae5.faults import Cut, Fault
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.plugin import ae5_program as ae5_program
from tests.standins.ae5.program import Program
from tests.support import forks
from tests.support.programs import REPOSITORY, clean_environment
from tests.support.terminal import run_on_terminal

SECRET = "postgresql://ml:planted-in-ae5-S3cret@db/mlflow"
WORD = "planted-in-ae5-S3cret"
UPLOAD = "/api/v2/projects/upload"
pytestmark = [pytest.mark.xdist_group("ae5"), pytest.mark.timeout(300)]


def run(
    program: Program,
    *arguments: str,
    code: int | None = 0,
    typed: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path = REPOSITORY,
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end; a code of None stands for any but 0."""
    ended = forks.run(
        [sys.executable, "-m", "mlflow_server", "ae5", *arguments],
        env=clean_environment(**{**program.environment, **(environment or {})}),
        typed=typed,
        cwd=cwd,
        timeout=120,
    )
    assert "Traceback" not in ended.stderr
    assert WORD not in ended.stdout + ended.stderr
    is_as_told = ended.returncode == code if code is not None else ended.returncode != 0
    assert is_as_told, (ended.returncode, ended.stdout, ended.stderr)
    return ended


def report(program: Program, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run a command and understand its report."""
    document: dict[str, Any] = json.loads(run(program, *arguments, "--json", **options).stdout)
    return document


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Release, Path], ...]:
    """Two releases, and their archives."""
    made = []
    for value in ("1", "2"):
        release = make_release(REPOSITORY, Customisation({"WHICH": value}))
        made.append((release, write_release(release, tmp_path_factory.mktemp("release"))))
    return tuple(made)


def names(cluster: Cluster) -> list[str]:
    """Of all projects."""
    return sorted(project.name for project in cluster.projects)


# --- Upload --------------------------------------------------------------------------------------


def test_an_archive_becomes_a_project_once(
    ae5_program: Program, ae5_cluster: Cluster, releases: tuple[tuple[Release, Path], ...]
) -> None:
    (release, path), _ = releases
    planned = report(ae5_program, "upload", str(path), "--dry-run")["items"][0]
    assert (planned["facts"]["action"], planned["facts"]["id"]) == ("upload", None)
    assert names(ae5_cluster) == []
    done = report(ae5_program, "upload", str(path))["items"][0]
    assert done["detail"] == "uploaded"
    assert names(ae5_cluster) == [PROJECT]
    (project,) = ae5_cluster.projects
    assert (
        project.id == done["facts"]["id"].removeprefix("a0-") or project.id == done["facts"]["id"]
    )
    uploads = ae5_cluster.count("POST", UPLOAD)
    again = report(ae5_program, "upload", str(path))["items"][0]
    assert (again["detail"], again["facts"]["id"]) == ("is there already", done["facts"]["id"])
    assert ae5_cluster.count("POST", UPLOAD) == uploads == 1
    assert tag_of(release).startswith(f"{__version__}-")


def test_a_name_that_is_taken(
    ae5_program: Program, ae5_cluster: Cluster, releases: tuple[tuple[Release, Path], ...]
) -> None:
    first, second = (str(path) for _, path in releases)
    run(ae5_program, "upload", first)
    told = run(ae5_program, "upload", second).stdout
    named = f"{PROJECT}-{__version__}"
    assert f"{PROJECT} is another release: it is called {named}" in told
    assert names(ae5_cluster) == [PROJECT, named]
    # Each is known again by what is in it.
    for path, name in ((first, PROJECT), (second, named)):
        assert report(ae5_program, "upload", path)["items"][0]["name"] == name
    run(ae5_program, "upload", second, "--name", "a:b", code=2)


def test_a_project_that_nothing_runs_of_is_replaced(
    ae5_program: Program, ae5_cluster: Cluster, releases: tuple[tuple[Release, Path], ...]
) -> None:
    first, second = (str(path) for _, path in releases)
    run(ae5_program, "upload", first)
    before = ae5_cluster.projects[0].id
    job = ("job", "create", PROJECT, "--name", "mine", "--command", "Doctor", "--no-run")
    assert ae5_program.run(*job, "--schedule", "0 3 * * *").returncode == 0
    refused = run(ae5_program, "upload", second, "--replace", code=1)
    assert "is in use: job mine" in refused.stderr
    assert ae5_program.run("job", "delete", "mine", "--yes").returncode == 0
    done = report(ae5_program, "upload", second, "--replace")["items"][0]
    assert done["detail"] == "replaced"
    assert names(ae5_cluster) == [PROJECT]
    assert ae5_cluster.projects[0].id != before


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("POST", UPLOAD, times=None, cut=Cut.REQUEST), 69),
        (Fault("POST", UPLOAD, times=None, status=500), 69),
        (Fault("POST", UPLOAD, times=None, status=502), 69),
        (Fault("POST", UPLOAD, times=None, status=403), 77),
    ],
    ids=["cut", "500", "502", "403"],
)
def test_an_upload_that_breaks_leaves_nothing(
    ae5_program: Program,
    ae5_cluster: Cluster,
    releases: tuple[tuple[Release, Path], ...],
    fault: Fault,
    code: int,
) -> None:
    (_, path), _ = releases
    ae5_cluster.faults.add(replace(fault))
    assert "ae5 project upload" in run(ae5_program, "upload", str(path), code=code).stderr
    assert names(ae5_cluster) == []
    ae5_cluster.faults.clear()
    run(ae5_program, "upload", str(path))
    assert names(ae5_cluster) == [PROJECT]


@pytest.mark.parametrize("where", [Cut.BEFORE_ANSWER, Cut.ANSWER])
def test_an_upload_whose_answer_is_lost(
    ae5_program: Program,
    ae5_cluster: Cluster,
    releases: tuple[tuple[Release, Path], ...],
    where: Cut,
) -> None:
    (_, path), _ = releases
    ae5_cluster.faults.cut(where, "POST", UPLOAD, times=None)
    done = report(ae5_program, "upload", str(path))["items"][0]
    (project,) = ae5_cluster.projects
    assert project.name == PROJECT == done["name"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_upload_that_is_stopped(
    ae5_program: Program,
    ae5_cluster: Cluster,
    releases: tuple[tuple[Release, Path], ...],
    number: signal.Signals,
) -> None:
    (_, path), _ = releases
    ae5_cluster.faults.slow(3, "POST", UPLOAD)
    command = [sys.executable, "-m", "mlflow_server", "ae5", "upload", str(path)]
    with subprocess.Popen(
        command,
        env=clean_environment(**ae5_program.environment),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        while not [each for each in ae5_program.calls if "upload" in each]:
            time.sleep(0.05)
            assert process.poll() is None
        time.sleep(0.5)
        process.send_signal(number)
        process.wait(60)
    time.sleep(3)
    done = report(ae5_program, "upload", str(path))["items"][0]
    assert names(ae5_cluster) == [PROJECT]
    assert done["name"] == PROJECT


def test_nobody_is_signed_in(ae5_program: Program, tmp_path: Path) -> None:
    without = dict.fromkeys(("AE5_PASSWORD",), "")
    refused = run(ae5_program, "upload", code=77, environment=without)
    assert "nobody is signed in" in refused.stderr
    refused = run(ae5_program, "upload", code=77, environment={"AE5_PASSWORD": "wrong"})
    assert "refuses this user or password" in refused.stderr
    nowhere = {"PATH": "/usr/bin:/bin"}
    assert "is not on PATH" in run(ae5_program, "upload", code=69, environment=nowhere).stderr
    named = {**nowhere, "TRACKING_SERVER_AE5": str(ae5_program.path)}
    run(ae5_program, "upload", environment=named)
    named["TRACKING_SERVER_AE5"] = str(tmp_path / "missing")
    assert "is no program" in run(ae5_program, "upload", code=78, environment=named).stderr


def test_an_administrator_acts_for_the_account(
    ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path
) -> None:
    impersonating = {
        "AE5_PASSWORD": "",
        "AE5_ADMIN_USERNAME": ADMIN,
        "AE5_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "AE5_IMPERSONATE": "1",
    }
    told = ("secrets", "set", "--values-file", "-")
    run(ae5_program, *told, typed=f"PGPASSWORD={WORD}\n", environment=impersonating)
    assert mounted(ae5_cluster) == {"PGPASSWORD": WORD}
    wrong = {"AE5_ADMIN_PASSWORD": "wrong", "AE5_TOOLS_CONFIG_DIR": str(tmp_path / "new")}
    refused = run(ae5_program, "secrets", "list", code=77, environment={**impersonating, **wrong})
    assert "refuses this user or password" in refused.stderr


# --- Secrets -------------------------------------------------------------------------------------


def mounted(cluster: Cluster) -> dict[str, str]:
    """The account's secrets as its pods see them."""
    folder = cluster.secrets.mount(USER)
    return {
        path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")
    }


def assert_told_nobody(cluster: Cluster, folder: Path) -> None:
    """No secret in what anybody could have kept."""
    assert WORD not in cluster.log
    for path in folder.rglob("*"):
        if path.is_file() and "secrets" not in path.parts and path.name != "values.env":
            assert WORD.encode() not in path.read_bytes(), path


def values_file(folder: Path) -> Path:
    """Two secrets in a file."""
    path = folder / "values.env"
    path.touch(0o600)
    path.write_text(
        f"# production\nMLFLOW_BACKEND_STORE_URI={SECRET}\nexport AWS_SECRET_ACCESS_KEY='a b$c#d'\n"
    )
    return path


def test_secrets_from_a_file(ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path) -> None:
    path = values_file(tmp_path)
    run(ae5_program, "secrets", "set", "--values-file", str(path), "--dry-run")
    assert mounted(ae5_cluster) == {}
    calls = len(ae5_program.calls)
    run(ae5_program, "secrets", "set", "--values-file", str(path))
    wanted = {"MLFLOW_BACKEND_STORE_URI": SECRET, "AWS_SECRET_ACCESS_KEY": "a b$c#d"}
    assert mounted(ae5_cluster) == wanted
    assert len(ae5_program.calls) == calls + 2
    # Only one of them, and none of those that are in there besides.
    path.write_text(f"MLFLOW_BACKEND_STORE_URI={SECRET}x\nOTHER=y\n")
    run(ae5_program, "secrets", "set", "MLFLOW_BACKEND_STORE_URI", "--values-file", str(path))
    assert mounted(ae5_cluster) == {**wanted, "MLFLOW_BACKEND_STORE_URI": f"{SECRET}x"}
    assert_told_nobody(ae5_cluster, tmp_path)


def test_secrets_from_standard_input_and_variables(
    ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path
) -> None:
    name = "MLFLOW_BACKEND_STORE_URI"
    run(ae5_program, "secrets", "set", name, "--values-file", "-", typed=f"{SECRET}\n")
    assert mounted(ae5_cluster) == {name: SECRET}
    run(ae5_program, "secrets", "set", "--values-file", "-", typed="PGSSLMODE=require\n")
    secret = {"MLFLOW_TRACKING_TOKEN": f"-{WORD}"}
    run(ae5_program, "secrets", "set", "MLFLOW_TRACKING_TOKEN", environment=secret)
    assert mounted(ae5_cluster) == {name: SECRET, "PGSSLMODE": "require", **secret}
    assert_told_nobody(ae5_cluster, tmp_path)
    listed = run(ae5_program, "secrets", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(mounted(ae5_cluster))


def test_no_process_list_shows_a_secret(
    ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path
) -> None:
    ae5_cluster.faults.slow(1, "POST", "/api/v2/credentials/user")
    command = [sys.executable, "-m", "mlflow_server", "ae5", "secrets", "set"]
    with subprocess.Popen(
        [*command, "--values-file", str(values_file(tmp_path))],
        env=clean_environment(**ae5_program.environment),
        stdout=subprocess.DEVNULL,
    ) as process:
        seen = 0
        while process.poll() is None:
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    content = entry.read_bytes()
                except OSError:
                    continue
                seen += b"runpy" in content
                assert WORD.encode() not in content
    assert process.returncode == 0
    assert seen > 5
    assert mounted(ae5_cluster)["MLFLOW_BACKEND_STORE_URI"] == SECRET


def test_a_refused_secret_is_not_repeated(
    ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path
) -> None:
    ae5_cluster.faults.answer(409, "POST", "/api/v2/credentials/user")
    path = values_file(tmp_path)
    refused = run(ae5_program, "secrets", "set", "--values-file", str(path), code=1)
    assert "ae5 secret add: the platform refused it (409)" in refused.stderr


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ("", 65, "NAME=VALUE"),
        ("nonsense\n", 65, "NAME=VALUE"),
        ("A=\n", 65, "NAME=VALUE"),
        ("BAD-NAME=x\n", 2, "letters, digits"),
        (f"MLFLOW_BACKEND_STORE_URI=nonsense-{WORD}\n", 78, "MLFLOW_BACKEND_STORE_URI"),
        ("MLFLOW_TRACKING_GC_TTL=soon\n", 78, "MLFLOW_TRACKING_GC_TTL"),
    ],
)
def test_values_that_cannot_be(
    ae5_program: Program, ae5_cluster: Cluster, tmp_path: Path, content: str, code: int, told: str
) -> None:
    path = tmp_path / "values.env"
    path.touch(0o600)
    path.write_text(content)
    assert told in run(ae5_program, "secrets", "set", "--values-file", str(path), code=code).stderr
    assert mounted(ae5_cluster) == {}


def test_a_file_that_others_may_read(ae5_program: Program, tmp_path: Path) -> None:
    path = values_file(tmp_path)
    path.chmod(0o640)
    refused = run(ae5_program, "secrets", "set", "--values-file", str(path), code=77)
    assert "chmod 600" in refused.stderr
    missing = str(tmp_path / "missing")
    run(ae5_program, "secrets", "set", "--values-file", missing, code=69)
    run(ae5_program, "secrets", "set", code=2)
    told = run(ae5_program, "secrets", "set", "PGPASSWORD", code=2).stderr
    assert "secret PGPASSWORD: has no value" in told


def test_a_secret_is_asked_for_on_a_terminal(ae5_program: Program, ae5_cluster: Cluster) -> None:
    command = [sys.executable, "-m", "mlflow_server", "ae5", "secrets", "set", "PGPASSWORD"]
    environment = {**clean_environment(**ae5_program.environment), "TERM": "xterm"}
    code, shown = run_on_terminal(
        command, cwd=REPOSITORY, environment=environment, typed=f"{WORD}\n".encode()
    )
    assert code == 0, shown
    assert "PGPASSWORD: " in shown
    assert WORD not in shown
    assert mounted(ae5_cluster) == {"PGPASSWORD": WORD}


def test_what_is_missing_is_told(ae5_program: Program) -> None:
    checked = report(ae5_program, "secrets", "check", code=3)
    assert {item["name"]: item["status"] for item in checked["items"]} == {
        "MLFLOW_ARTIFACTS_DESTINATION": "failed", "MLFLOW_BACKEND_STORE_URI": "failed",
    }  # fmt: skip
    typed = f"MLFLOW_BACKEND_STORE_URI={SECRET}\nMLFLOW_ARTIFACTS_DESTINATION=s3://b/x\n"
    run(ae5_program, "secrets", "set", "--values-file", "-", typed=typed)
    run(ae5_program, "secrets", "check")
    told = run(ae5_program, "secrets", "check", "PGPASSWORD", code=3).stdout
    assert "mlflow-server ae5 secrets set PGPASSWORD" in told


def test_a_session_that_has_ended(ae5_program: Program, ae5_cluster: Cluster) -> None:
    run(ae5_program, "secrets", "list")
    ae5_cluster.login.expire()
    run(ae5_program, "secrets", "list")
    assert ae5_program.state.is_dir()
