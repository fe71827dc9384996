"""The stand-in for an AE5 cluster runs, admits, refuses and breaks as the tests believe."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.standins.ae5.client import Client, signed_in
from tests.standins.ae5.cluster import READER, READER_PASSWORD, USER, Cluster, cluster
from tests.standins.ae5.faults import Cut
from tests.standins.ae5.jobs import is_schedule
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.tiny import PROJECT, make_archive

pytestmark = pytest.mark.xdist_group("ae5")

NOBODY = "a0-" + "0" * 32


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The service account and its project `tiny`, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("ae5-shared")
    with cluster(folder / "c") as running, signed_in(running) as client:
        client.upload(make_archive(folder / "tiny.tar.gz"), "tiny")
        yield client


@pytest.fixture
def client(ae5_cluster: Cluster) -> Iterator[Client]:
    """The service account, signed in."""
    with signed_in(ae5_cluster) as client:
        yield client


@pytest.fixture
def tiny(client: Client, tmp_path: Path) -> Client:
    """The same, with the project `tiny` uploaded."""
    answer = client.upload(make_archive(tmp_path / "tiny.tar.gz"), "tiny")
    assert answer.json()["action"]["error"] is False
    return client


def expect_complaint(cluster: Cluster, words: str) -> None:
    """There is one complaint, of this; it is forgotten."""
    (complaint,) = cluster.complaints
    assert words in complaint
    cluster.complaints.clear()


# Sign-in


def test_sign_in_gives_cookies_that_expire(ae5_cluster: Cluster) -> None:
    with signed_in(ae5_cluster) as client:
        assert {"KEYCLOAK_IDENTITY", "_xsrf"} <= {cookie.name for cookie in client.cookies}
        assert all(cookie.expires and cookie.expires > time.time() for cookie in client.cookies)
        assert client.ask("GET", "projects").json() == []


def test_wrong_password_is_a_page_and_no_session(ae5_cluster: Cluster) -> None:
    with Client(ae5_cluster) as client:
        answer = client.sign_in(password="wrong")
        assert answer.status_code == 200
        assert "Invalid username or password." in answer.text
        assert client.ask("GET", "projects").status_code == 401


def test_sessions_end_when_they_expire_and_when_one_signs_out(ae5_cluster: Cluster) -> None:
    with signed_in(ae5_cluster) as client, signed_in(ae5_cluster) as other:
        client.ask("GET", "/logout")
        assert client.ask("GET", "projects").status_code == 401
        assert other.ask("GET", "projects").status_code == 200
        ae5_cluster.login.expire()
        assert other.ask("GET", "projects").status_code == 401


# Strictness


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "complaint"),
    [
        ("GET", "nothing", {}, 404, "no such path"),
        ("PUT", "projects", {}, 405, "PUT is not for"),
        ("GET", "projects?x=1", {}, 400, "unknown parameters"),
        ("GET", "projects", {"data": "x"}, 400, "a body"),
        ("GET", "projects", {"headers": {"x-xsrftoken": "x"}}, 403, "x-xsrftoken"),
        ("POST", "credentials/user", {"json": {"key": "A"}}, 422, "['value']"),
        ("POST", "credentials/user", {"json": {"key": "A", "value": 1}}, 422, "wrong type"),
        ("POST", "credentials/user", {"json": {"key": "A-B", "value": "1"}}, 400, "underscores"),
        ("POST", "credentials/user", {"data": "{}"}, 415, "has to be JSON"),
        ("POST", "credentials/user", {"json": {"key": "", "value": "", "x": 1}}, 422, "['x']"),
        ("POST", "projects/upload", {"data": {"name": "x"}}, 400, "multipart"),
        ("POST", "projects/upload", {"files": {"file": b""}}, 422, "missing fields"),
        ("GET", "projects/actions", {}, 400, "q=create_action"),
        ("GET", "projects", {"headers": {"Host": "elsewhere"}}, 421, "unknown host"),
    ],
)
def test_what_no_client_should_send_is_refused_and_noted(
    shared: Client, method: str, path: str, request_: dict[str, Any], status: int, complaint: str
) -> None:
    assert shared.ask(method, path, **request_).status_code == status
    expect_complaint(shared.cluster, complaint)


def test_an_answer_that_ends_the_connection_says_so(shared: Client) -> None:
    """Or a client that asks again at once meets a connection that is just being closed."""
    answer = shared.ask("GET", "projects", headers={"Host": "elsewhere"})
    assert answer.headers["Connection"] == "close"
    expect_complaint(shared.cluster, "unknown host")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "x"}, "target must be deploy"),
        ({"command": "Nothing"}, "no command Nothing"),
        ({"resource_profile": "huge"}, "no resource profile huge"),
        ({"revision": "9.9"}, "do not fit"),
        ({"source": "elsewhere"}, "do not fit"),
        ({"public": "no"}, "wrong type"),
        ({"static_endpoint": "a_b"}, "invalid static endpoint"),
        ({"schedule": None}, "['schedule']"),
    ],
)
def test_deployment_has_to_be_asked_for_in_the_right_form(
    shared: Client, change: dict[str, Any], words: str
) -> None:
    assert shared.deploy("tiny", **change).status_code in (400, 422)
    expect_complaint(shared.cluster, words)
    assert shared.ask("GET", "deployments").json() == []


def test_what_is_not_there_is_no_complaint(shared: Client) -> None:
    for path in (f"projects/{NOBODY}/revisions", "deployments/x", "jobs/x", "runs/x/logs"):
        assert shared.ask("GET", path).status_code == 404
    assert shared.ask("DELETE", "credentials/user/NOTHING").status_code == 404
    assert shared.cluster.complaints == []


def test_other_names_than_the_cluster_are_not_reached(client: Client) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        client.get("https://elsewhere.test/", timeout=30)
    assert client.cluster.tunnel.strangers == ["elsewhere.test:443"]


def test_port_is_part_of_the_address_unless_it_is_443(tmp_path: Path) -> None:
    with cluster(tmp_path / "c", public_port=8443) as running, signed_in(running) as client:
        assert running.authority == "ae5.test:8443"
        assert client.ask("GET", "projects").status_code == 200
        assert running.complaints == []


# Projects


def test_taken_name_is_refused_in_the_action(tiny: Client, tmp_path: Path) -> None:
    answer = tiny.upload(tmp_path / "tiny.tar.gz", "tiny")
    assert (answer.status_code, answer.json()["action"]["error"]) == (201, True)
    assert "already exists" in answer.json()["action"]["message"]
    assert len(tiny.ask("GET", "projects").json()) == 1


def write_tar(path: Path, entries: Mapping[str, str | None]) -> Path:
    """An archive of files by name; None is a link."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text or "")
            if text is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry, io.BytesIO((text or "").encode()))
    return path


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a/anaconda-project.yml": "name: a", "b/x": ""}, "one top folder, not 2"),
        ({"a/anaconda-project.yml": "name: a", "a/x": None}, "neither file nor folder"),
        ({"a/anaconda-project.yml": "name: a", "a/../../x": ""}, "leads out"),
        ({"/a/anaconda-project.yml": "name: a"}, "leads out"),
        ({"anaconda-project.yml": "name: a"}, "not below a top folder"),
        ({"a/x": ""}, "anaconda-project.yml is missing"),
        ({"a/anaconda-project.yml": "a: [b"}, "cannot be read"),
        ({"a/anaconda-project.yml": "name: a\nname: b"}, "cannot be read"),
        (
            {"a/anaconda-project.yml": "name: a\nvariables: {FLAG: true}"},
            "default value for variable FLAG must be null, a string, or a number, not True",
        ),
        ({"a/anaconda-project.yml": "name: a\ncommands: {x: {}}"}, "exactly one of"),
        (
            {"a/anaconda-project.yml": "name: a\ncommands: {x: {unix: x, env_spec: b}}"},
            "there is no env_spec b",
        ),
    ],
)
def test_bad_archive_is_refused(
    shared: Client, tmp_path: Path, entries: dict[str, str | None], words: str
) -> None:
    action = shared.upload(write_tar(tmp_path / "a.tar.gz", entries), "a").json()["action"]
    assert action["error"] is True
    assert words in action["message"]
    assert [each["name"] for each in shared.ask("GET", "projects").json()] == ["tiny"]


def test_upload_can_take_its_time(client: Client, tmp_path: Path) -> None:
    client.cluster.upload_polls = 2
    record = client.upload(make_archive(tmp_path / "tiny.tar.gz"), "tiny").json()
    path = f"projects/{record['id']}/activity"
    asked = {"sort": "-updated", "page[size]": "1"}
    done = [client.ask("GET", path, params=asked).json()["data"][0]["done"] for _ in range(2)]
    assert (record["action"]["done"], *done) == (False, False, True)


def test_archive_comes_back_as_it_was(tiny: Client, tmp_path: Path) -> None:
    (project,) = tiny.ask("GET", "projects").json()
    archive = (tmp_path / "tiny.tar.gz").read_bytes()
    for revision in ("latest", "0.0.1"):
        path = f"projects/{project['id']}/revisions/{revision}/archive"
        assert tiny.ask("GET", path).content == archive


def test_new_revision_is_the_first_of_the_list(tiny: Client, tmp_path: Path) -> None:
    tiny.cluster.commit("tiny", "0.0.2", make_archive(tmp_path / "new.tar.gz"))
    (project,) = tiny.ask("GET", "projects").json()
    revisions = tiny.ask("GET", f"projects/{project['id']}/revisions").json()
    assert [each["name"] for each in revisions] == ["0.0.2", "0.0.1"]
    assert revisions[0]["url"] == f"{project['url']}/revisions/0.0.2"
    assert [each["default"] for each in revisions[0]["commands"]] == [True] + [False] * 4


def test_project_is_deleted_when_nothing_runs_of_it(tiny: Client) -> None:
    path = f"projects/{tiny.ask('GET', 'projects').json()[0]['id']}"
    number = tiny.make_job("tiny", "Long").json()["id"]
    assert tiny.ask("DELETE", path).status_code == 409
    (run,) = tiny.ask("GET", f"jobs/{number}/runs").json()
    tiny.ask("POST", f"runs/{run['id']}/stop")
    tiny.cluster.wait_for(tiny.cluster.runs[0], "failed")
    assert tiny.ask("DELETE", path).status_code == 204


# Deployments and the gateway


def started(client: Client, **more: Any) -> tuple[str, str]:
    """Id and token of a deployment at the endpoint `web` that has started."""
    number = client.deploy("tiny", static_endpoint="Web", **more).json()["id"]
    client.cluster.wait_for(client.cluster.deployments[-1], "started")
    return number, client.ask("POST", f"deployments/{number}/token").json()["token"]


def test_deployment_runs_and_needs_its_token(tiny: Client) -> None:
    number, token = started(tiny)
    assert tiny.ask("POST", f"deployments/{number}/token").json()["token"] == token
    told = tiny.ask("GET", "/a%20b?c=d", "web", token=token).json()
    assert told["path"] == "/a%20b?c=d"
    assert told["headers"]["Host"] == told["headers"]["X-Forwarded-Host"] == "web.ae5.test"
    assert told["headers"]["X-Forwarded-Proto"] == "https"
    flags = " ".join(told["flags"])
    assert flags == (
        "--anaconda-project-address 127.0.0.1 --anaconda-project-host web.ae5.test"
        " --anaconda-project-no-browser --anaconda-project-use-xheaders"
        " --anaconda-project-iframe-hosts ae5.test"
    )
    with Client(tiny.cluster) as stranger:
        answer = stranger.ask("GET", "/x", "web")
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("https://ae5.test/auth/realms/")
        assert stranger.ask("GET", "/x", "web", token="wrong").status_code == 401
        assert stranger.ask("GET", "/_errors/404.html", "web").status_code == 200
        assert stranger.ask("GET", "/_errors/404.html", "free").status_code == 404
    logs = tiny.ask("GET", f"deployments/{number}/logs").json()
    assert set(logs) == {"app", "proxy", "events", "name"}
    assert "The project is ready to run commands." in logs["app"]


def test_bodies_are_streamed_both_ways(tiny: Client) -> None:
    _, token = started(tiny)
    pieces = [bytes([number]) * 10_000 for number in range(20)]
    answer = tiny.ask("PUT", "/x", "web", token=token, data=iter(pieces))
    assert (answer.status_code, answer.content) == (201, b"".join(pieces))


def test_browsers_get_in_by_signing_in_when_it_is_shared(tiny: Client) -> None:
    number, _ = started(tiny)
    address = f"{tiny.cluster.url('web')}/x"
    with signed_in(tiny.cluster, READER) as reader:
        assert reader.get(address, timeout=30).status_code == 403
        everyone = [{"id": "everyone", "type": "group", "permission": "r"}]
        path = f"deployments/{number}/collaborators"
        assert tiny.ask("PUT", path, json=everyone).json()["collaborators"] == everyone
        assert reader.get(address, timeout=30).json()["path"] == "/x"
        assert reader.ask("POST", f"deployments/{number}/token").status_code == 404
    unknown = [{"id": "nobody", "type": "user", "permission": "r"}]
    assert tiny.ask("PUT", path, json=unknown).json()["action"]["error"] is True
    assert READER_PASSWORD not in tiny.cluster.log


def test_public_deployment_needs_no_token(tiny: Client) -> None:
    number, _ = started(tiny)
    tiny.ask("PATCH", f"deployments/{number}", json={"public": True})
    with Client(tiny.cluster) as stranger:
        assert stranger.ask("GET", "/x", "web").status_code == 200


def test_stop_ends_everything_and_voids_the_token(tiny: Client, tmp_path: Path) -> None:
    number, token = started(tiny)
    pod = tiny.cluster.deployments[0]
    (process,) = tiny.cluster.pods.processes(pod)
    assert tiny.ask("DELETE", f"deployments/{number}").status_code == 204
    assert tiny.ask("GET", "/x", "web", token=token).status_code in (401, 404)
    deadline = time.monotonic() + 10
    while tiny.ask("GET", "deployments").json() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert tiny.ask("GET", "/x", "web", token=token).status_code == 404
    # The endpoint stays this project's.
    (endpoint,) = tiny.ask("GET", "/platform/deploy/api/v1/apps/static-endpoints").json()["data"]
    assert endpoint["id"] == "web"
    tiny.upload(tmp_path / "tiny.tar.gz", "other")
    assert tiny.deploy("other", static_endpoint="web").status_code == 409
    tiny.cluster.keeps_claims = False
    assert tiny.deploy("other", static_endpoint="web").status_code == 201


def test_taken_endpoint_is_refused(tiny: Client) -> None:
    started(tiny)
    answer = tiny.deploy("tiny", static_endpoint="web", name="second")
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == 'endpoint "web" is already in use'
    assert [each.name for each in tiny.cluster.deployments] == ["tiny"]


@pytest.mark.parametrize("command", ["Bad", "Good"])
def test_command_that_ends_has_failed_to_run(tiny: Client, command: str) -> None:
    tiny.deploy("tiny", command)
    pod = tiny.cluster.wait_for(tiny.cluster.deployments[0], "failed")
    assert pod.status_text == "App failed to run"


def test_gateway_says_502_when_the_app_is_gone(tiny: Client) -> None:
    _, token = started(tiny)
    assert tiny.ask("DELETE", "/", "web", token=token).status_code == 502
    tiny.cluster.wait_for(tiny.cluster.deployments[0], "failed")
    assert tiny.ask("GET", "/", "web", token=token).status_code == 502


def test_what_does_not_stop_is_killed(client: Client, tmp_path: Path) -> None:
    stubborn = {**PROJECT, "commands": {"Stay": {"unix": "trap '' TERM; sleep 60 & sleep 60"}}}
    client.upload(make_archive(tmp_path / "a.tar.gz", stubborn), "stubborn")
    client.cluster.pods.grace_s = 0.2
    client.make_job("stubborn", "Stay")
    run = client.cluster.wait_for(client.cluster.runs[0], "starting")
    time.sleep(0.1)
    client.ask("POST", f"runs/{run.id}/stop")
    client.cluster.wait_for(run, "failed", timeout=5)
    assert run.status_text == f"exit status {-signal.SIGKILL}"


# Jobs


def test_jobs_run_and_tell_how_they_ended(tiny: Client) -> None:
    number = tiny.make_job("tiny", "Good", variables={"WORD": "moon"}).json()["id"]
    tiny.make_job("tiny", "Bad")
    for run, state in zip(tiny.cluster.runs, ("completed", "failed"), strict=True):
        tiny.cluster.wait_for(run, state)
    log = tiny.ask("GET", f"runs/{tiny.cluster.runs[0].id}/logs").json()["job"]
    assert log.endswith("hello moon\n")
    assert "something is wrong" in tiny.cluster.runs[1].log
    assert tiny.ask("POST", f"jobs/{number}/runs").json()["name"] == "Good-job"
    tiny.cluster.wait_for(tiny.cluster.fire("Good-job"), "completed")
    assert len(tiny.ask("GET", f"jobs/{number}/runs").json()) == 3


def test_job_is_deleted_with_its_runs_unless_one_is_active(tiny: Client) -> None:
    number = tiny.make_job("tiny", "Long").json()["id"]
    assert tiny.ask("DELETE", f"jobs/{number}").status_code == 409
    run = tiny.cluster.runs[0]
    tiny.ask("POST", f"runs/{run.id}/stop")
    tiny.cluster.wait_for(run, "failed")
    assert tiny.ask("DELETE", f"jobs/{number}").status_code == 204
    assert tiny.ask("GET", "runs").json() == []


def test_job_of_a_taken_name_or_bad_schedule_is_an_error_with_status_200(tiny: Client) -> None:
    fixed: dict[str, Any] = {"autorun": False, "name": "gc"}
    for schedule, problem in (
        ("*/10 * * * *", None),
        ("*/10 * * * *", "already exists"),
        ("*/8 * * * *", "Invalid schedule"),
    ):
        answer = tiny.make_job("tiny", "Good", schedule=schedule, **fixed)
        assert answer.ok
        assert problem is None or problem in answer.json()["error"]["message"]
        fixed["name"] = "gc" if problem is None else "gc2"
    assert [job.schedule for job in tiny.cluster.jobs] == ["*/10 * * * *"]
    assert tiny.cluster.runs == []


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("* * * * *", True),
        ("*/10 0-6 1,15 * 1-5", True),
        ("0 3 * * 7", True),
        ("*/8 * * * *", False),
        ("60 * * * *", False),
        ("0 24 * * *", False),
        ("0 3 0 * *", False),
        ("5-1 * * * *", False),
        ("*/0 * * * *", False),
        ("0 3 * * MON", False),
        ("@daily", False),
        ("0 0 3 * * *", False),
        ("", False),
    ],
)
def test_schedules(text: str, is_good: bool) -> None:
    assert is_schedule(text) is is_good


def test_required_variable_without_a_value_keeps_a_command_from_running(
    client: Client, tmp_path: Path
) -> None:
    project = {**PROJECT, "variables": ["NEEDED"]}
    client.upload(make_archive(tmp_path / "a.tar.gz", project), "a")
    client.make_job("a", "Good")
    client.make_job("a", "Good", name="given", variables={"NEEDED": "x"})
    client.cluster.wait_for(client.cluster.runs[0], "failed")
    client.cluster.wait_for(client.cluster.runs[1], "completed")
    assert "NEEDED" in client.cluster.runs[0].log


def test_line_without_http_options_is_a_template(client: Client, tmp_path: Path) -> None:
    commands = {"Show": {"unix": "echo {{host}} {{HOME and 'home'}} {{nothing}}."}}
    client.upload(make_archive(tmp_path / "a.tar.gz", {**PROJECT, "commands": commands}), "a")
    client.make_job("a", "Show")
    run = client.cluster.wait_for(client.cluster.runs[0], "completed")
    assert run.log.endswith(f"{run.hex}.ae5.test home .\n")


# Secrets


def test_secrets_are_files_in_pods(tiny: Client) -> None:
    for name, value in (("A", "planted-a\n"), ("B", "planted-b")):
        answer = tiny.ask("POST", "credentials/user", json={"key": name, "value": value})
        assert (answer.status_code, answer.content) == (204, b"")
    assert tiny.ask("GET", "credentials/user").json() == {"data": ["A", "B"]}
    folder = tiny.cluster.secrets.folder / USER
    assert (folder / "A").readlink() == Path("..data/A")
    assert (folder / "A").read_bytes() == b"planted-a\n"
    assert "planted" not in tiny.cluster.log
    tiny.make_job("tiny", "Secrets")
    assert "planted-b" in tiny.cluster.wait_for(tiny.cluster.runs[0], "completed").log
    assert "planted" in tiny.cluster.log  # what a pod prints is found
    tiny.ask("DELETE", "credentials/user/A")
    assert sorted(each.name for each in folder.iterdir() if each.name[0] != ".") == ["B"]


def test_change_of_a_secret_can_be_late(client: Client) -> None:
    secrets = client.cluster.secrets
    secrets.set(USER, "A", "old")
    secrets.is_late = True
    secrets.set(USER, "A", "new")
    assert (secrets.folder / USER / "A").read_text() == "old"
    assert (secrets.mount(USER) / "A").read_text() == "new"


# Faults


def test_answers_can_be_slow_bad_or_nobody_signed_in(client: Client) -> None:
    faults = client.cluster.faults
    faults.slow(0.2, "GET", "/api/v2/projects")
    begin = time.monotonic()
    assert client.ask("GET", "projects").status_code == 200
    assert time.monotonic() - begin >= 0.2
    rule = faults.answer(502, "GET", "*/projects", times=2, after=1)
    assert [client.ask("GET", "projects").status_code for _ in range(4)] == [200, 502, 502, 200]
    assert rule.hits == 2
    faults.expire("GET", "*/projects")
    assert client.ask("GET", "projects").status_code == 401
    assert client.cluster.count("GET", "/api/v2/projects") == 6


@pytest.mark.parametrize(
    ("where", "failure", "is_done"),
    [
        (Cut.REQUEST, requests.exceptions.ConnectionError, False),
        (Cut.BEFORE_ANSWER, requests.exceptions.ConnectionError, True),
        (Cut.ANSWER, requests.exceptions.ChunkedEncodingError, True),
    ],
)
def test_connections_break_off(
    client: Client, tmp_path: Path, where: Cut, failure: type[Exception], is_done: bool
) -> None:
    client.cluster.faults.cut(where, "POST", "*/upload")
    archive = make_archive(tmp_path / "tiny.tar.gz", files={"big": os.urandom(500_000).hex()})
    with pytest.raises(failure):
        client.upload(archive, "tiny")
    assert [each.name for each in client.cluster.projects] == (["tiny"] if is_done else [])


@pytest.mark.parametrize("where", list(Cut))
def test_connections_to_deployments_break_off(tiny: Client, where: Cut) -> None:
    _, token = started(tiny)
    tiny.cluster.faults.cut(where, "GET", "web/*")
    with pytest.raises(requests.exceptions.RequestException):
        tiny.ask("GET", "/x", "web", token=token)
    assert tiny.ask("GET", "/x", "web", token=token).status_code == 200


def test_pods_can_fail_or_hang(tiny: Client) -> None:
    faults = tiny.cluster.faults
    faults.failing_runs, faults.failing_deployments, faults.stalled_deployments = 1, 1, 1
    tiny.make_job("tiny", "Good")
    tiny.make_job("tiny", "Good", name="second")
    for run, state in zip(tiny.cluster.runs, ("failed", "completed"), strict=True):
        tiny.cluster.wait_for(run, state)
    tiny.deploy("tiny")
    tiny.cluster.wait_for(tiny.cluster.deployments[0], "starting")
    tiny.deploy("tiny")
    tiny.cluster.wait_for(tiny.cluster.deployments[1], "failed")
    assert tiny.ask("DELETE", f"deployments/{tiny.cluster.deployments[0].id}").status_code == 204
