"""Names, schedules, and what `ae5` says: judged without asking anybody."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.ae5.cron import next_runs, require_cron
from mlflow_server.ae5.names import require_endpoint, require_name, require_secret_name
from mlflow_server.ae5.program import Said, explain
from mlflow_server.ae5.release_file import ReleaseFile, read_release_file
from mlflow_server.errors import ExitCode, UsageError
from tests.support.programs import REPOSITORY

NOW = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)
SECRET = "planted-S3cret"


@pytest.mark.parametrize("name", ["mlflow", "a", "1", "a-b", "Mlflow", "x" * 63])
def test_endpoints_are_dns_labels(name: str) -> None:
    assert require_endpoint(name) == name.lower()


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "_x", "bad_name!", "a.b", "ä", "x" * 64])
def test_what_is_no_dns_label(name: str) -> None:
    with pytest.raises(UsageError, match="DNS label"):
        require_endpoint(name)


@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_a_name_that_is_taken_is_one_that_ae5_finds_again(name: str) -> None:
    try:
        require_name(name, "project")
    except UsageError:
        return
    assert name
    assert not set(name) & set(":/,|&=<>!*?[] \n\t")


@pytest.mark.parametrize("name", ["A-B", "a b", "", "ä", "a.b"])
def test_what_is_no_name_of_a_secret(name: str) -> None:
    with pytest.raises(UsageError):
        require_secret_name(name)


@pytest.mark.parametrize(
    "cron",
    ["*/10 * * * *", "0 3 * * *", "0,30 8-18 1 1-6/2 1,5", "59 23 31 12 7", "0-30/5 */6 * * */7"],
)
def test_schedules_that_the_platform_takes(cron: str) -> None:
    assert require_cron(f"  {cron} ") == cron
    runs = next_runs(cron, NOW, 5)
    assert len(runs) == 5
    assert all(a < b for a, b in pairwise([NOW, *runs]))
    assert {(run.tzinfo, run.second) for run in runs} == {(UTC, 0)}


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("*/8 * * * *", "divide 60"),
        ("0 */5 * * *", "divide 24"),
        ("0 0 */2 * *", "divide 31"),
        ("0 0 * */5 *", "divide 12"),
        ("0 0 * * */2", "divide 7"),
        ("*/0 * * * *", "divide 60"),
        ("60 * * * *", "from 0 to 59"),
        ("0 0 0 * *", "from 1 to 31"),
        ("30-10 * * * *", "ends before"),
        ("5/10 * * * *", "no range"),
        ("0 0 * * MON", "is no number"),
        ("@daily", "1 fields"),
        ("* * * * * *", "6 fields"),
        ("", "0 fields"),
        ("a * * * *", "is no number"),
        ("1,,2 * * * *", "is no number"),
        ("-5 * * * *", "is no number"),
    ],
)
def test_schedules_that_it_does_not_take(cron: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        require_cron(cron)


def test_next_runs() -> None:
    assert next_runs("*/10 * * * *", NOW, 2) == [
        datetime(2026, 11, 21, 12, 40, tzinfo=UTC), datetime(2026, 11, 21, 12, 50, tzinfo=UTC),
    ]  # fmt: skip
    assert next_runs("0 0 30 2 *", NOW) == []


def test_the_release_file_of_the_documentation(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/runbooks/ae5.md").read_text()
    file = tmp_path / "release.yml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    wanted = read_release_file(file)
    assert set(wanted.schedules) == {"gc", "backup"}
    assert wanted.resource_profile == "large"
    assert wanted.share.everyone
    assert set(wanted.upgrade.variables) == {"TRACKING_SERVER_BACKUP_FOLDER"}
    told = ("schedules", "resource_profile", "share", "upgrade")
    plain = wanted.model_copy(update={name: getattr(ReleaseFile(), name) for name in told})
    assert plain == ReleaseFile()


CONNECTING = "Connecting to user account ada@ae5.example.com.\n"
TRACEBACK = f"""{CONNECTING}Traceback (most recent call last):
  File "x.py", line 1, in <module>
    call(json={{'key': 'K', 'value': '{SECRET}'}})
requests.exceptions."""


@pytest.mark.parametrize(
    ("code", "err", "exit_code", "told"),
    [
        (1, "Error: Invalid username or password.\n", ExitCode.NOT_PERMITTED, "refuses this user"),
        (1, f"{CONNECTING}Password: Aborted!\n", ExitCode.NOT_PERMITTED, "nobody is signed in"),
        (1, "Error: No projects found matching name=x\n", ExitCode.UNAVAILABLE, "no such project"),
        (
            1,
            f"Error: Unexpected response: 409 Conflict\n  POST https://h/x\n  json: {SECRET}\n",
            ExitCode.FAILED,
            "refused it (409)",
        ),
        (1, "Error: Unexpected response: Unable to connect\n", ExitCode.UNAVAILABLE, "be reached"),
        (1, "Error: Unexpected response: 500 Oh\n", ExitCode.UNAVAILABLE, "failed (500)"),
        (1, "Error: Unexpected response: 403 No\n", ExitCode.NOT_PERMITTED, "not allow it (403)"),
        (1, f"{TRACEBACK}RetryError: too many 502", ExitCode.UNAVAILABLE, "failed (RetryError)"),
        (1, f"{TRACEBACK}RetryError: too many 403 error responses", ExitCode.NOT_PERMITTED, "403"),
        (1, f"{TRACEBACK}ConnectionError: x", ExitCode.UNAVAILABLE, "(ConnectionError)"),
        (2, "Usage: ae5\n\nError: No such option: --tag\n", ExitCode.UNAVAILABLE, "not know an op"),
        (2, "Error: Conflicting values for --password: a, b\n", ExitCode.SETTINGS, "different th"),
        (1, 'Error: endpoint "x" is already in use\n', ExitCode.BUSY, "the endpoint is in use"),
        (-9, "", ExitCode.UNAVAILABLE, "exit code -9"),
    ],
)
def test_what_a_failed_call_means(code: int, err: str, exit_code: ExitCode, told: str) -> None:
    failure = explain("ae5 secret add", Said(code, "", err))
    assert failure.exit_code is exit_code
    assert told in failure.message
    assert SECRET not in f"{failure.message}{failure.hint}"
    assert "Traceback" not in failure.message
