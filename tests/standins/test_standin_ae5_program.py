"""The stand-in for the program `ae5` says and does what ae5-tools 0.7.3 does.

With AE5_CLI, or a real `ae5` on PATH, the same tests look at that one. Source: facts of ae5-tools
0.7.3, section 1, and every line compared with the real program.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.standins.ae5.client import Client, signed_in
from tests.standins.ae5.cluster import (
    ADMIN,
    ADMIN_PASSWORD,
    PASSWORD,
    READER,
    READER_PASSWORD,
    USER,
    Cluster,
    cluster,
)
from tests.standins.ae5.faults import Cut
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.plugin import ae5_program as ae5_program
from tests.standins.ae5.program import Program, install, interpreter_of, prepare
from tests.standins.ae5.tiny import make_archive
from tests.support.programs import REPOSITORY

pytestmark = pytest.mark.xdist_group("ae5")

CONNECTING = f"Connecting to user account {USER}@ae5.test.\n"
Done: TypeAlias = "subprocess.CompletedProcess[str]"


@dataclass(frozen=True)
class Place:
    """A cluster with the project `tiny`, and what reaches it."""

    cluster: Cluster
    program: Program
    client: Client
    folder: Path

    def ae5(self, *arguments: str, **more: Any) -> Done:
        """Run the program in the folder that has `tiny.tar.gz`."""
        return self.program.run(*arguments, cwd=self.folder, **more)

    def json(self, *arguments: str) -> Any:
        """What it prints as JSON, when all is well."""
        done = self.ae5(*arguments, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, ae5_installed: tuple[Path, bool]
) -> Iterator[Place]:
    """The same for tests that change nothing."""
    folder = tmp_path_factory.mktemp("ae5-shared")
    path, is_real = ae5_installed
    with cluster(folder / "c") as running, signed_in(running) as client:
        client.upload(make_archive(folder / "tiny.tar.gz"), "tiny")
        yield Place(running, prepare(path, running, folder / "h", is_real=is_real), client, folder)


@pytest.fixture
def place(ae5_cluster: Cluster, ae5_program: Program, tmp_path: Path) -> Iterator[Place]:
    """With one project, `tiny`."""
    archive = make_archive(tmp_path / "tiny.tar.gz")
    with signed_in(ae5_cluster) as client:
        client.upload(archive, "tiny")
        yield Place(ae5_cluster, ae5_program, client, tmp_path)


def words(text: str) -> list[str]:
    """The arguments of a command line without quotes."""
    return text.split()


def is_traceback(done: Done, last: str) -> bool:
    """It crashed, with this beginning of the last words."""
    return done.returncode == 1 and "Traceback" in done.stderr and f"\n{last}" in done.stderr


# Usage, output forms


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("project list --nothing", 2, "Error: No such option"),
        ("project list --format xml", 2, "Invalid value for '--format'"),
        ("project info", 2, "Error: Missing argument 'PROJECT'."),
        ("project list --password x", 2, f"Conflicting values for --password: {PASSWORD}, x"),
        ("project list --columns nothing", 2, "requested columns were not found:\n  - nothing"),
        ("project list --filter nothing=1", 2, "Error: Invalid filter field: nothing"),
        ("project info tiny --columns name", 2, "requested columns were not found:\n  - name"),
        ("project upload nothing.tar.gz", 2, "Path 'nothing.tar.gz' does not exist."),
        ("secret add NAME -value", 2, "Error: No such option"),
        ("job create tiny --command Good --variable x", 2, "is invalid:\n  - x"),
        ("project info nothing", 1, "Error: No projects found matching name=nothing"),
        ("project info tiny:latest", 1, "Error: Revision tag not expected here: tiny:latest"),
        (f"project info a2-{'0' * 32}", 1, "Error: Expected a project ID, not a deployment ID"),
        ("project revision info tiny:9", 1, "Error: No revisions found matching name=9"),
        ("secret delete NOTHING --yes", 1, "Error: User secret NOTHING was not found and"),
        ("secret add A-B x", 1, "Key contains non-alphanumeric characters."),
        ("project deploy tiny --endpoint _x", 1, "Error: Invalid endpoint: _x"),
    ],
)
def test_refusals(shared: Place, arguments: str, status: int, told: str) -> None:
    done = shared.ae5(*words(arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_version(ae5_program: Program) -> None:
    done = ae5_program.run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("ae5 0.7")


def test_forms_of_a_list(place: Place) -> None:
    done = place.ae5("project", "list", "--format", "json")
    (record,) = json.loads(done.stdout)
    assert done.stderr == CONNECTING
    assert record["_record_type"] == "project"
    assert "git_server" not in record  # null
    assert place.json("project", "list", "--columns", "name,owner") == [
        {"name": "tiny", "owner": USER}
    ]
    assert place.json("project", "list", "nothing") == []
    table = place.ae5("project", "list", "--format", "csv", "--columns", "name,owner").stdout
    assert table == f"name,owner\ntiny,{USER}\n"  # \r\n, before text mode
    assert all(len(line) <= 80 for line in place.ae5("project", "list").stdout.splitlines())
    # Not the same as saying nothing: a Python object, which is none of the forms.
    assert place.ae5("project", "list", "--format", "text").stdout.startswith("[{'")


def test_several_matches_are_listed(place: Place) -> None:
    place.client.upload(place.folder / "tiny.tar.gz", "tino")
    done = place.ae5("project", "info", "tin?")
    ids = [f"  - {USER}/{each.name}/{each.id}" for each in place.cluster.projects]
    assert done.returncode == 1
    assert done.stderr == "\n".join(
        [f"{CONNECTING}Error: Multiple projects found matching name=tin?:", *ids, ""]
    )


# Sign-in


def test_saved_session_needs_no_password(place: Place) -> None:
    without = {"AE5_PASSWORD": None}
    assert place.ae5("project", "list", environment=without).stderr.endswith("Aborted!\n")
    assert place.ae5("project", "list").returncode == 0
    cookies = place.program.state / "cookies" / f"{USER}@ae5.test"
    assert (cookies.stat().st_mode & 0o777, cookies.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert place.ae5("project", "list", environment=without).returncode == 0
    place.cluster.login.expire()
    assert place.ae5("project", "list").returncode == 0  # silently signed in again
    assert "ae5.test" in place.ae5("account", "list").stdout


def test_wrong_password(place: Place) -> None:
    done = place.ae5("project", "list", environment={"AE5_PASSWORD": "wrong"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{CONNECTING}Error: Invalid username or password.\n"


def test_administrator_becomes_a_user(place: Place) -> None:
    as_reader = {"AE5_USERNAME": READER, "AE5_PASSWORD": None, "AE5_IMPERSONATE": "true"}
    admin = {"AE5_ADMIN_USERNAME": ADMIN, "AE5_ADMIN_PASSWORD": ADMIN_PASSWORD}
    done = place.ae5("secret", "add", "A", "x", environment={**as_reader, **admin})
    assert done.returncode == 0, done.stderr
    assert f"Connecting to admin account {ADMIN}@ae5.test." in done.stderr
    assert place.cluster.secrets.of(READER) == {"A": "x"}
    assert (place.program.state / "tokens" / f"{ADMIN}@ae5.test").exists()


def test_nothing_is_saved_when_it_should_not_be(place: Place) -> None:
    place.ae5("project", "list", environment={"AE5_NO_SAVED_LOGINS": "1"})
    assert not list(place.program.state.iterdir())


def test_sign_out_leaves_what_breaks_the_list_of_accounts(place: Place) -> None:
    done = place.ae5("login")
    assert done.stdout.splitlines()[-1].startswith("----  -----  ---")  # an empty table of runs
    assert place.ae5("logout").stderr == f"{CONNECTING}Logged out as {USER}@ae5.test.\n"
    assert is_traceback(place.ae5("account", "list"), "ValueError")


def test_certificate_is_checked_only_when_asked_for(place: Place) -> None:
    unknown = {"REQUESTS_CA_BUNDLE": None, "CURL_CA_BUNDLE": None, "SSL_CERT_FILE": None}
    assert place.ae5("project", "list", environment=unknown).returncode == 0
    place.cluster.login.expire()
    (place.program.state / "cookies" / f"{USER}@ae5.test").unlink()
    done = place.ae5("project", "list", environment={**unknown, "AE5_TLS_VERIFY": "true"})
    assert is_traceback(done, "requests.exceptions.SSLError")


# Retries and crashes


def test_some_refusals_are_tried_again_and_look_like_a_crash(place: Place) -> None:
    rule = place.cluster.faults.answer(503, "GET", "*/projects", times=3)
    assert place.ae5("project", "list").returncode == 0
    assert rule.hits == 3
    place.cluster.faults.answer(403, "GET", "*/projects", times=None)
    done = place.ae5("project", "list")
    assert is_traceback(done, "requests.exceptions.RetryError")


def test_refused_secret_is_told_to_everybody(place: Place) -> None:
    place.cluster.faults.answer(500, "POST", "*/credentials/user")
    done = place.ae5("secret", "add", "NAME", "planted")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: Unexpected response: 500 Internal Server Error\n" in done.stderr
    assert "json: {'key': 'NAME', 'value': 'planted'}" in done.stderr


def test_post_is_sent_again_when_its_answer_was_lost(place: Place) -> None:
    place.cluster.faults.cut(Cut.BEFORE_ANSWER, "POST", "*/upload")
    done = place.ae5("project", "upload", "tiny.tar.gz", "--name", "other")
    assert is_traceback(done, "RuntimeError: Error processing upload: Project other already")
    assert [each.name for each in place.cluster.projects] == ["tiny", "other"]


def test_upload_is_cut_in_the_middle(place: Place) -> None:
    rule = place.cluster.faults.cut(Cut.REQUEST, "POST", "*/upload", times=None)
    place.json("project", "list")
    done = place.ae5("project", "upload", "tiny.tar.gz", "--name", "other")
    assert done.returncode == 1
    assert "Error: Unexpected response: Unable to connect" in done.stderr
    assert rule.hits == 4
    assert [each.name for each in place.cluster.projects] == ["tiny"]


def test_upload_after_a_session_that_has_expired_sends_nothing(place: Place) -> None:
    place.ae5("project", "list")
    place.cluster.login.expire()
    done = place.ae5("project", "upload", "tiny.tar.gz", "--name", "other")
    assert is_traceback(done, "RuntimeError: Error processing upload: Project archive is invalid")


# Prompts


@pytest.mark.parametrize(
    ("arguments", "typed", "status", "is_gone"),
    [
        ("project delete tiny", "", 1, False),
        ("project delete tiny", "n\n", 0, False),
        ("project delete tiny", "y\n", 0, True),
        ("project delete tiny --yes", "", 0, True),
        ("--yes project delete tiny", "", 1, False),  # counts only behind the last command
    ],
)
def test_question_before_something_is_lost(
    place: Place, arguments: str, typed: str, status: int, is_gone: bool
) -> None:
    done = place.ae5(*words(arguments), typed=typed)
    assert done.returncode == status
    assert (place.cluster.projects == []) is is_gone
    assert done.stderr.endswith("Aborted!\n") is (status == 1)


# Projects


def test_upload(place: Place) -> None:
    place.cluster.upload_polls = 2
    record = place.json("project", "upload", "tiny.tar.gz", "--name", "new", "--tag", "1.2.3")
    assert (record["name"], record["owner"]) == ("new", USER)
    (revision,) = place.json("project", "revision", "list", "new")
    assert (revision["name"], revision["latest"]) == ("1.2.3", True)
    commands = place.json("project", "revision", "commands", "new:1.2.3")
    assert [each["id"] for each in commands] == ["Server", "Good", "Bad", "Long", "Secrets"]
    done = place.ae5("project", "download", "new:1.2.3")
    assert done.stdout == "new-1.2.3.tar.gz\n"
    made = place.folder / "new-1.2.3.tar.gz"
    assert made.read_bytes() == (place.folder / "tiny.tar.gz").read_bytes()


def test_taken_name_is_a_traceback(place: Place) -> None:
    done = place.ae5("project", "upload", "tiny.tar.gz")
    assert is_traceback(done, "RuntimeError: Error processing upload: Project tiny already exists")


# Deployments


def deployed(place: Place, *more: str) -> dict[str, Any]:
    """The record of a deployment `web` at an endpoint of that name."""
    found: dict[str, Any] = place.json(
        *[
            "project",
            "deploy",
            "tiny",
            "--name",
            "web",
            "--endpoint",
            "Web",
            "--command",
            "Server",
            "--private",
        ],
        *more,
    )
    return found


def test_deploy_token_restart_stop(place: Place) -> None:
    record = deployed(place, "--wait")
    assert (record["state"], record["endpoint"], record["revision"]) == ("started", "web", "latest")
    token = place.ae5("deployment", "token", "web")
    assert (token.returncode, token.stderr) == (0, CONNECTING)
    assert place.client.ask("GET", "/", "web", token=token.stdout.strip()).status_code == 200
    done = place.ae5("deployment", "token", "web", "--format", "json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{CONNECTING}Error: Response is not a tabular format\n"

    shared = place.json("deployment", "collaborator", "add", "web", "everyone", "--group")
    assert [(each["id"], each["type"]) for each in shared] == [("everyone", "group")]
    again = place.json("deployment", "restart", "web", "--wait")
    assert again["id"] != record["id"]
    kept = ("name", "endpoint", "command", "resource_profile", "public", "revision")
    assert [again[name] for name in kept] == [record[name] for name in kept]
    assert place.json("deployment", "collaborator", "list", "web") == shared
    old = place.client.ask("GET", "/", "web", token=token.stdout.strip())
    assert old.status_code == place.cluster.bad_token_status

    done = place.ae5("deployment", "stop", again["id"], "--yes")
    assert done.stderr.endswith("...stopped.\n")
    assert done.stdout == ""


def test_deploy_returns_at_once_and_says_so_on_stderr(place: Place) -> None:
    place.cluster.faults.stalled_deployments = 1
    begin = [
        "project",
        "deploy",
        "tiny",
        "--name",
        "web",
        "--endpoint",
        "web",
        "--command",
        "Server",
    ]
    done = place.ae5(*begin)
    project = place.cluster.projects[0]
    assert done.stderr == (
        f"{CONNECTING}Starting private deployment web at endpoint web for"
        f" {USER}/tiny/{project.id}...started.\n"
    )
    done = place.ae5(*begin)
    assert done.stderr.endswith('...\nError: endpoint "web" is already in use\n')
    (endpoint,) = place.json("endpoint", "list")
    assert (endpoint["id"], endpoint["project_name"]) == ("web", "tiny")
    assert endpoint["deployment_id"] == place.cluster.deployments[0].id


def test_deployment_that_fails_stays_unless_told_otherwise(place: Place) -> None:
    begin = words("project deploy tiny --name bad --command Bad --wait")
    done = place.ae5(*begin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Error: Error completing deployment start: App failed to run\n")
    assert len(place.cluster.deployments) == 1
    assert place.ae5(*begin, "--stop-on-error").returncode == 1
    assert len(place.cluster.stopped) == 1
    assert "something is wrong" in place.ae5("deployment", "logs", "bad").stdout


def test_name_that_is_no_label_is_left_to_the_cluster(place: Place) -> None:
    done = place.ae5(*words("project deploy tiny --command Server --endpoint bad_name!"))
    assert done.returncode == 1
    assert "400 Bad Request" in done.stderr
    place.cluster.complaints.clear()


def test_call_to_a_deployment_signs_in_by_itself(place: Place) -> None:
    deployed(place, "--wait")
    done = place.ae5("call", "/x", "--endpoint", "web", "--format", "json")
    assert json.loads(done.stdout)["path"] == "/x"


def test_probe_of_an_endpoint_that_answers_badly_is_a_crash(place: Place) -> None:
    place.cluster.faults.answer(502, "HEAD", "web/*", times=None)
    done = place.ae5(*words("project deploy tiny --endpoint web --command Server"))
    assert is_traceback(done, "requests.exceptions.RetryError")


# Jobs


def test_job_that_fails_is_a_success(place: Place) -> None:
    begin = words("job create tiny --command Bad --name bad --wait")
    job = place.json(*begin)
    assert "schedule" not in job
    (run,) = place.json("job", "runs", "bad")
    assert (run["name"], run["state"]) == ("bad", "failed")
    assert "something is wrong" in place.ae5("run", "log", run["id"], "--format", "json").stdout
    done = place.ae5(*begin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("...\nError: Error starting job: Job bad already exists\n")
    assert place.json(*begin, "--make-unique", "--show-run")["name"] == "bad-1"


def test_project_run_removes_the_job_and_its_log(place: Place) -> None:
    run = place.json(*words("project run tiny --command Bad"))
    assert (run["name"], run["state"]) == ("Bad-tiny", "failed")
    assert place.json("job", "list") == place.json("run", "list") == []


def test_schedule(place: Place) -> None:
    begin = words("job create tiny --command Good --name gc --schedule")
    done = place.ae5(*begin, "*/8 * * * *")
    assert "Error: Error starting job: " in done.stderr
    job = place.json(*begin, "*/10 * * * *", "--variable", "A = b=c ")
    assert (job["schedule"], job["variables"]) == ("*/10 * * * *", {"A": "b=c "})
    assert place.cluster.runs == []
    assert place.json("job", "pause", "gc")["state"] == "paused"
    assert place.json("job", "run", "gc")["name"] == "gc"
    place.cluster.wait_for(place.cluster.runs[0], "completed")
    done = place.ae5("job", "delete", "gc", "--yes")
    assert done.stderr.endswith("...deleted.\n")


def test_job_without_a_command_is_a_traceback(place: Place) -> None:
    done = place.ae5(*words("job create tiny --name x"))
    assert is_traceback(done, "TypeError: string indices must be integers")


def test_job_patch_is_broken(place: Place) -> None:
    place.client.make_job("tiny", "Good", autorun=False, name="gc")
    done = place.ae5(*words("job patch gc --command Bad"))
    assert is_traceback(done, "AttributeError: 'AEUserSession' object has no attribute")
    assert place.ae5(*words("job patch gc --variable A=b")).returncode == 0
    job = place.cluster.jobs[0]
    assert (job.command, job.variables) == ("Good", {})


# Secrets, without the program


ADD = """\
import sys
from ae5_tools.api import AEUserSession
host, user, name = sys.argv[1:]
session = AEUserSession(host, user, persist=True)
session.secret_add(name, sys.stdin.read())
print(session.secret_list())
"""


def add_secret(program: Program, name: str, value: str) -> Done:
    """As a caller does it that keeps a value off every command line."""
    return subprocess.run(
        [str(interpreter_of(program.path)), "-c", ADD, "ae5.test", USER, name],
        env={**program.environment},
        input=value,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )


def test_secret_goes_through_the_interpreter_of_the_program(place: Place) -> None:
    assert place.ae5("secret", "add", "A", "--", "-x").stdout == ""
    done = add_secret(place.program, "B", "planted")
    assert (done.returncode, done.stdout) == (0, "[{'secret_name': 'A'}, {'secret_name': 'B'}]\n")
    assert place.json("secret", "list") == [{"secret_name": "A"}, {"secret_name": "B"}]
    assert place.cluster.secrets.of(USER) == {"A": "-x", "B": "planted"}
    assert "planted" not in place.cluster.log + done.stderr + str(place.program.calls)


@pytest.mark.parametrize("as_shell", [False, True])
def test_interpreter_knows_ae5_tools_and_nothing_of_ours(tmp_path: Path, as_shell: bool) -> None:
    script = install(tmp_path / ("an env" if as_shell else "env"), as_shell=as_shell)
    python = interpreter_of(script)
    assert script.read_text().startswith("#!/bin/sh\n'''exec'" if as_shell else f"#!{python}\n")
    look = "import ae5_tools; print(ae5_tools.__version__); import mlflow_server"
    done = subprocess.run(
        [str(python), "-c", look],
        capture_output=True,
        text=True,
        env={"AE5_TOOLS_CONFIG_DIR": str(tmp_path)},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout == "0.7.3\n"
    assert "No module named 'mlflow_server'" in done.stderr
    if as_shell:  # the kernel takes no first line with a space
        environment = {"AE5_TOOLS_CONFIG_DIR": str(tmp_path)}
        assert subprocess.check_output([script, "--version"], env=environment) == b"ae5 0.7.3\n"


def test_calls_are_noted(place: Place, ae5_installed: tuple[Path, bool], tmp_path: Path) -> None:
    other = prepare(ae5_installed[0], place.cluster, tmp_path / "other", is_real=False)
    other.run("project", "list")
    other.run("secret", "add", "A", "two words")
    assert other.calls == [["project", "list"], ["secret", "add", "A", "two words"]]
    assert place.program.calls == []


def test_stand_in_runs_as_a_module(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.standins.ae5.program", "project", "list", "--format", "json"],
        env={**place.program.environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, json.loads(done.stdout)[0]["name"]) == (0, "tiny")


def test_reader_sees_nothing_of_others(place: Place) -> None:
    as_reader = {"AE5_USERNAME": READER, "AE5_PASSWORD": READER_PASSWORD}
    done = place.ae5("project", "list", "--format", "json", environment=as_reader)
    assert json.loads(done.stdout) == []
