"""The commands of a release as the platform runs them: out of the uploaded archive, for real.

One cluster and one server for the whole module. Whatever a test changes for itself, secrets above
all, it puts back; so each test runs alone, too.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from mlflow_server.ae5.contents import PROJECT
from tests.integration.test_ae5_server import archive as archive
from tests.integration.test_ae5_upload import WORD, assert_told_nobody, mounted, run
from tests.standins.ae5.client import Client, signed_in
from tests.standins.ae5.cluster import PASSWORD, READER, USER, Cluster, cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.program import Program, prepare
from tests.standins.ae5.state import Deployment, Run
from tests.support.programs import DESTINATION, REPOSITORY, STORE

ENDPOINT = "mlflow"
TTL = "MLFLOW_TRACKING_GC_TTL"
BACKUPS = "TRACKING_SERVER_BACKUPS"
ARTIFACT = "deep/er/words.txt"
RELEASED = {"anaconda-project.yml", "README.md", "CHANGELOG.md", "LICENSE", "mlflow_server"}
# Nobody listens there; the password is the one that must not be told.
UNREACHABLE = f"postgresql://ml:{WORD}@127.0.0.1:1/mlflow"
OLD_STORE = REPOSITORY / "tests/data/old-stores/mlflow-2.22.1.db"
# For what starts MLflow on a busy machine with two cores.
WAIT_S = 120.0

# What a user's script does. Arguments: the names of runs, one each.
_LOG = f"""\
import json, sys
import mlflow

mlflow.set_experiment("commands")
made = {{}}
for name in sys.argv[1:]:
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_params({{"name": name, "alpha": 0.5}})
        mlflow.log_metric("loss", 0.25, step=3)
        mlflow.log_text(f"words of {{name}}: ä ö \\u2603", {ARTIFACT!r})
    made[name] = run.info.run_id
print(json.dumps(made))
"""
# Arguments: ids of runs.
_READ = f"""\
import json, sys, tempfile
from pathlib import Path
import mlflow

client, told = mlflow.MlflowClient(), []
for run_id in sys.argv[1:]:
    run = client.get_run(run_id)
    history = [[each.step, each.value] for each in client.get_metric_history(run_id, "loss")]
    with tempfile.TemporaryDirectory() as folder:
        words = Path(client.download_artifacts(run_id, {ARTIFACT!r}, folder)).read_text("utf-8")
    told.append([dict(run.data.params), history, words])
print(json.dumps(told))
"""
_DELETE = """\
import sys
import mlflow

for run_id in sys.argv[1:]:
    mlflow.MlflowClient().delete_run(run_id)
"""

pytestmark = [pytest.mark.xdist_group("ae5-commands"), pytest.mark.timeout(600)]


def logged(name: str) -> list[object]:
    """What `_READ` says of a run of that name."""
    return [
        {"name": name, "alpha": "0.5"}, [[3, 0.25]], f"words of {name}: ä ö \u2603",
    ]  # fmt: skip


@dataclass(frozen=True)
class Site:
    """An account with a release, secrets and a server that runs.

    Args:
        program: The program `ae5` of the account.
        cluster: Where it all runs.
        folder: Holds everything; data are in `folder/data`, outside of all projects.
    """

    program: Program
    cluster: Cluster
    folder: Path

    @property
    def store(self) -> Path:
        """The database."""
        return self.folder / "data/store.db"

    def artifact(self, run_id: str) -> Path:
        """Where the file of a run lies on the disk."""
        (found,) = (self.folder / "data/artifacts").glob(f"*/{run_id}")
        return found / "artifacts" / ARTIFACT

    def rows(self, run_id: str) -> int:
        """How many rows there are of a run, in all tables that name runs so."""
        tables = ("runs", "params", "metrics", "latest_metrics", "tags")
        uri = f"{self.store.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return sum(
                connection.execute(
                    f"SELECT count(*) FROM {table} WHERE run_uuid = ?",  # noqa: S608
                    (run_id,),
                ).fetchone()[0]
                for table in tables
            )

    def set_secrets(self, **values: str) -> None:
        """As an operator does, who types nothing of it on a command line."""
        typed = "".join(f"{name}={value}\n" for name, value in values.items())
        run(self.program, "secrets", "set", "--values-file", "-", typed=typed)

    @contextlib.contextmanager
    def secrets(self, **values: str) -> Iterator[None]:
        """Other secrets for a while."""
        before = self.cluster.secrets.of(USER)
        self.set_secrets(**values)
        assert mounted(self.cluster) == {**before, **values}
        try:
            yield
        finally:
            for name in values:
                self.cluster.secrets.set(USER, name, before.get(name))

    def client(
        self, script: str, *arguments: str, endpoint: str = ENDPOINT, token: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A script with a stock MLflow client, which knows an address, a token and certificates."""
        deployment = self.cluster.at_endpoint(endpoint)
        assert deployment is not None
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={
                "MLFLOW_TRACKING_URI": self.cluster.url(endpoint),
                "MLFLOW_TRACKING_TOKEN": deployment.token if token is None else token,
                **self.cluster.client_environment(),
            },
            cwd=self.folder / "somewhere",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    def log(self, *names: str) -> list[str]:
        """Runs with everything in them; their ids."""
        ended = self.client(_LOG, *names)
        assert ended.returncode == 0, ended.stderr
        made: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
        return [made[name] for name in names]

    def read(self, *run_ids: str, endpoint: str = ENDPOINT) -> list[list[object]]:
        """What a client gets to know of runs."""
        ended = self.client(_READ, *run_ids, endpoint=endpoint)
        assert ended.returncode == 0, ended.stderr
        told: list[list[object]] = json.loads(ended.stdout.splitlines()[-1])
        return told

    def start_job(self, command: str, name: str, **variables: str) -> Run:
        """Start a command as a job, with the program itself: ours knows only some of them."""
        told = [f"--variable={key}={value}" for key, value in variables.items()]
        create = ("job", "create", PROJECT, "--name", name, "--command", command, "--run")
        ended = self.program.run(*create, *told)
        assert ended.returncode == 0, ended.stderr
        return next(each for each in self.cluster.runs if each.name == name)

    def run_job(self, command: str, name: str, **variables: str) -> Run:
        """The same, to its end."""
        started = self.start_job(command, name, **variables)
        return self.cluster.wait_for(started, "completed", "failed", timeout=WAIT_S)

    def stop(self, deployment: Deployment) -> None:
        """Stop a server, to its end: what it still has open would be in the way."""
        stopped = self.program.run("deployment", "stop", deployment.id, "--yes")
        assert stopped.returncode == 0, stopped.stderr
        deadline = time.monotonic() + WAIT_S
        while deployment in self.cluster.deployments:
            assert time.monotonic() < deadline, deployment.log
            time.sleep(0.05)

    def used_modules(self, deployment: Deployment) -> set[str]:
        """The modules of the archive that a pod has imported: Python leaves their byte code."""
        package = self.cluster.pods.project_folder(deployment) / "mlflow_server"
        return {
            path.relative_to(package).as_posix().partition(".")[0].replace("__pycache__/", "")
            for path in package.rglob("*.pyc")
        }


@pytest.fixture(scope="module")
def site(
    ae5_installed: tuple[Path, bool], archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The release is uploaded, and its TrackingServer runs; data are outside of the project."""
    folder = tmp_path_factory.mktemp("ae5-commands")
    (folder / "somewhere").mkdir()
    path, is_real = ae5_installed
    with cluster(folder / "ae5-cluster") as running:
        running.pods.grace_s = 5.0
        program = prepare(path, running, folder / "ae5-home", is_real=is_real)
        made = Site(program, running, folder)
        run(program, "upload", str(archive))
        made.set_secrets(
            **{STORE: f"sqlite:///{made.store}", DESTINATION: f"{folder}/data/artifacts"},
            AWS_ACCESS_KEY_ID="AKIAPLANTED",
            AWS_SECRET_ACCESS_KEY=WORD,
        )
        run(program, "deploy")
        run(program, "url")
        run(program, "token")
        yield made
        assert running.complaints == []


@pytest.fixture(scope="module")
def backup(site: Site) -> tuple[dict[str, str], list[str]]:
    """Made by a job while the server runs: settings that name it, and ids of runs in it.

    The second run is deleted, but not collected.
    """
    live, deleted = site.log("in-backup", "deleted-in-backup")
    assert site.client(_DELETE, deleted).returncode == 0
    backups = site.folder / "backups"
    told = run(site.program, "run", "backup", "--variable", f"{BACKUPS}={backups}")
    assert "completed" in told.stderr
    assert str(backups) in told.stdout
    return {"TRACKING_SERVER_ARCHIVE": "latest", BACKUPS: str(backups)}, [live, deleted]


@pytest.fixture(autouse=True)
def aftermath(site: Site) -> Iterator[None]:
    """What has to be so after each test.

    No secret is in a log, in a call, or in a file but the secrets' own; no pod has left anything
    in its project's folder, which the platform forgets.
    """
    yield
    assert mounted(site.cluster)["AWS_SECRET_ACCESS_KEY"] == WORD
    assert_told_nobody(site.cluster, site.folder)
    calls = [word for call in site.program.calls for word in call]
    assert "(hidden)" in calls
    assert "/api/v2/credentials/user" in site.cluster.log
    for word in (WORD, PASSWORD, mounted(site.cluster)["MLFLOW_TRACKING_TOKEN"]):
        assert word not in site.cluster.log
        assert not [each for each in calls if word in each]
    for project in (site.cluster.folder / "pods").glob("*/project"):
        assert {entry.name for entry in project.iterdir()} == RELEASED


def test_a_stock_client_logs_through_the_gateway(site: Site) -> None:
    """Params, metrics and an artifact, there and back, with nothing but address and token."""
    deployment = site.cluster.at_endpoint(ENDPOINT)
    assert deployment is not None
    assert mounted(site.cluster)["MLFLOW_TRACKING_TOKEN"] == deployment.token
    (run_id,) = site.log("first")
    assert site.read(run_id) == [logged("first")]
    # The server has kept it where the secrets say.
    assert site.artifact(run_id).read_text("utf-8") == logged("first")[2]
    assert site.rows(run_id) > 0
    # It is the archive's own code, in the supervisor and in what serves requests.
    assert {"cli/serve", "server/app"} <= site.used_modules(deployment)


def test_with_another_token_a_client_gets_nowhere(site: Site) -> None:
    """It is told so, and none of its requests reaches the server."""
    before = len(site.cluster.calls)
    ended = site.client(_LOG, "stranger", token="wrong")
    assert ended.returncode != 0
    assert "the token is not valid" in ended.stderr
    assert {each.status for each in site.cluster.calls[before:]} == {401}


def test_a_reader_opens_it_in_a_browser_when_it_is_shared(site: Site) -> None:
    """The page and what it asks for, with the session of somebody else, and only after `share`."""
    url = site.cluster.url(ENDPOINT)
    (run_id,) = site.log("looked-at")
    asked = {"run_id": run_id}
    with Client(site.cluster) as stranger:
        answer = stranger.ask("GET", "/", ENDPOINT)
        assert (answer.status_code, "/auth/realms/" in answer.headers["Location"]) == (302, True)
    with signed_in(site.cluster, READER) as reader:
        assert reader.get(f"{url}/", timeout=30).status_code == 403
        shut = reader.ask("GET", "/ajax-api/2.0/mlflow/runs/get", ENDPOINT, params=asked)
        assert shut.status_code == 403
        run(site.program, "share", "--user", READER)
        page = reader.get(f"{url}/", timeout=30)
        assert (page.status_code, page.url) == (200, f"{url}/")
        assert "<title>MLflow</title>" in page.text
        told = reader.ask("GET", "/ajax-api/2.0/mlflow/runs/get", ENDPOINT, params=asked)
        assert told.json()["run"]["info"]["run_name"] == "looked-at"
        # A browser says where the page came from, with all that is no GET.
        found = search_experiments(reader, url)
        assert found.status_code == 200, found.text
        assert "commands" in [each["name"] for each in found.json()["experiments"]]
        assert search_experiments(reader, "https://elsewhere.test").status_code == 403


def search_experiments(reader: Client, origin: str) -> requests.Response:
    """What the page asks for first."""
    return reader.ask(
        "POST",
        "/ajax-api/2.0/mlflow/experiments/search",
        ENDPOINT,
        json={"max_results": 10},
        headers={"Origin": origin},
    )


def test_garbage_of_a_proxied_store_is_collected_by_a_job(site: Site) -> None:
    """Files and rows of what was deleted longer ago than the TTL go; all others stay."""
    gone, kept = site.log("gone", "kept")
    ended = site.client(_DELETE, gone)
    assert ended.returncode == 0, ended.stderr
    gone_file, kept_file = site.artifact(gone), site.artifact(kept)
    rows = {run_id: site.rows(run_id) for run_id in (gone, kept)}
    assert min(rows.values()) > 0

    with site.secrets(**{TTL: "7d0h0m0s"}):
        # By the clock, with the TTL of the secret and not anaconda-project.yml's: not old enough.
        run(site.program, "schedule", "gc", "--cron", "0 3 * * *")
        fired = site.cluster.fire("mlflow-gc")
        site.cluster.wait_for(fired, "completed", timeout=WAIT_S)
        assert "Deleted more than 7d ago" in fired.log
        assert gone_file.exists()
        assert {run_id: site.rows(run_id) for run_id in (gone, kept)} == rows
        # A job's own variable beats the secret.
        told = run(site.program, "run", "gc", "--variable", f"{TTL}=0d0h0m0s")
    assert "completed" in told.stderr
    assert not gone_file.exists()
    assert kept_file.read_text("utf-8") == logged("kept")[2]
    assert {run_id: site.rows(run_id) for run_id in (gone, kept)} == {gone: 0, kept: rows[kept]}
    # The server, which was not asked, says the same.
    assert site.read(kept) == [logged("kept")]
    with Client(site.cluster) as asking:
        deployment = site.cluster.at_endpoint(ENDPOINT)
        assert deployment is not None
        path = f"/api/2.0/mlflow/runs/get?run_id={gone}"
        answer = asking.ask("GET", path, ENDPOINT, token=deployment.token)
        assert answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_a_backup_is_restored_into_new_places_and_served_from_there(
    site: Site, backup: tuple[dict[str, str], list[str]]
) -> None:
    """Secrets name a new empty database and a new folder: Restore, and a server of its own."""
    variables, run_ids = backup
    new = site.folder / "new"
    with site.secrets(**{STORE: f"sqlite:///{new}/store.db", DESTINATION: f"{new}/artifacts"}):
        restored = site.run_job("Restore", "restore", **variables)
        assert restored.state == "completed", restored.log
        # Never over what is there.
        content = (new / "store.db").read_bytes()
        again = site.run_job("Restore", "restore-again", **variables)
        assert again.state == "failed"
        assert "the store is not empty" in again.log
        assert (new / "store.db").read_bytes() == content

        run(site.program, "deploy", "--endpoint", "restored")
        deployment = site.cluster.at_endpoint("restored")
        assert deployment is not None
        try:
            assert site.read(*run_ids, endpoint="restored") == [
                logged("in-backup"), logged("deleted-in-backup"),
            ]  # fmt: skip
        finally:
            site.stop(deployment)


def test_an_old_database_is_examined_and_upgraded(site: Site) -> None:
    """Doctor says what is to be done, DatabaseUpgrade does it, and Doctor is content."""
    old = site.folder / "old"
    (old / "artifacts").mkdir(parents=True)
    shutil.copy(OLD_STORE, old / "store.db")
    places = {STORE: f"sqlite:///{old}/store.db", DESTINATION: f"{old}/artifacts"}
    with site.secrets(**places):
        before = schema_and_runs(old / "store.db")
        told = run(site.program, "run", "doctor", code=1)
        assert "job mlflow-doctor-now: failed" in told.stderr
        assert "FAIL schema" in told.stdout
        assert schema_and_runs(old / "store.db") == before
        assert "completed" in run(site.program, "run", "upgrade").stderr
        after = schema_and_runs(old / "store.db")
        assert after == (schema_and_runs(site.store)[0], before[1])
        assert after[0] != before[0]
        # The way back lies where the data do.
        (kept,) = (old / "upgrade-backups").glob("*/store.sqlite")
        assert schema_and_runs(kept) == before
        assert "completed" in run(site.program, "run", "doctor").stderr


def schema_and_runs(store: Path) -> tuple[str, int]:
    """The revision of a database, and how many runs there are."""
    with contextlib.closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return revision, runs


def test_no_command_succeeds_without_its_database(
    site: Site, backup: tuple[dict[str, str], list[str]]
) -> None:
    """Each ends as failed with the exit code for it, and says why without the password."""
    target = site.folder / "target.db"
    jobs = {
        "Doctor": {}, "GarbageCollection": {}, "DatabaseUpgrade": {},
        "Backup": {BACKUPS: f"{site.folder}/no-backups"},
        "Restore": backup[0],
        "Migrate": {"TRACKING_SERVER_TO_BACKEND_STORE_URI": f"sqlite:///{target}"},
    }  # fmt: skip
    (project,) = site.cluster.projects
    assert {each.name for each in project.revisions[-1].commands} == {"TrackingServer", *jobs}
    told = UNREACHABLE.replace(WORD, "***") + ": cannot reach the database: connection refused"
    with site.secrets(**{STORE: UNREACHABLE}):
        started = [
            site.start_job(command, f"no-{command}", **variables)
            for command, variables in jobs.items()
        ]
        refused = run(site.program, "deploy", "--endpoint", "broken", code=1)
        for each in started:
            site.cluster.wait_for(each, "completed", "failed", timeout=WAIT_S)
    assert "deployment mlflow: did not start (failed)" in refused.stderr
    assert told in refused.stderr
    broken = site.cluster.at_endpoint("broken")
    assert broken is not None
    assert (broken.state, broken.status_text) == ("failed", "App failed to run")
    for each in started:
        ended = (each.command, each.state, each.status_text)
        assert ended == (each.command, "failed", "exit status 69"), each.log
        assert told in each.log
    assert not (site.folder / "no-backups").exists()
    assert not target.exists()
