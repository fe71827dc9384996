"""The systemd unit of `deploy/` is valid, hardened, and agrees with the server it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mlflow_server.errors import ExitCode
from mlflow_server.settings.model import iter_definitions
from tests.support.programs import REPOSITORY

UNIT = REPOSITORY / "deploy" / "systemd" / "mlflow-server.service"
EXAMPLE = REPOSITORY / "deploy" / "systemd" / "environment.example"
PROGRAM = "/opt/mlflow-server/venv/bin/mlflow-server"
MOST_EXPOSURE = 2.5


def needed(program: str) -> str:
    """Path of a program that these tests cannot do without; skips, except in CI."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and CI must have it")
        pytest.skip(reason)
    return found


def directives(name: str) -> list[str]:
    """Values of a directive of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here, which `verify` insists on."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(PROGRAM) == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(PROGRAM, shutil.which("true") or "/bin/true"), encoding="utf-8")
    return copy


def test_systemd_finds_no_fault_in_the_unit(unit: Path) -> None:
    # Faults of other units of this machine are reported too: only lines about ours count.
    result = subprocess.run(
        [needed("systemd-analyze"), "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in result.stderr.splitlines() if UNIT.stem in line] == []
    assert result.returncode == 0, result.stderr


def test_unit_is_hardened(unit: Path) -> None:
    result = subprocess.run(
        [needed("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert exposure, result.stderr
    assert float(exposure[1]) <= MOST_EXPOSURE


def test_restart_is_not_tried_where_it_cannot_help() -> None:
    (codes,) = directives("RestartPreventExitStatus")
    assert {ExitCode(int(code)) for code in codes.split()} == {
        ExitCode.USAGE,
        ExitCode.SCHEMA,
        ExitCode.BAD_INPUT,
        ExitCode.NOT_PERMITTED,
        ExitCode.SETTINGS,
    }


def test_stop_waits_longer_than_the_server() -> None:
    (grace,) = (
        d.default
        for d in iter_definitions()
        if d.setting.name == "TRACKING_SERVER_GRACEFUL_TIMEOUT"
    )
    (limit,) = directives("TimeoutStopSec")
    # 5 s for what the server does once the grace is over.
    assert int(limit) >= grace + 5


def test_credentials_are_secrets_the_server_reads() -> None:
    loaded = dict(line.split(":") for line in directives("LoadCredential"))
    secrets = {d.setting.name for d in iter_definitions() if d.is_secret}
    for name, source in loaded.items():
        # A name without a slash: systemd looks into /etc/credstore, and goes on without it.
        assert source == f"mlflow-server.{name}"
        assert name in secrets or name.startswith(("AWS_", "AZURE_")), name
    assert "TRACKING_SERVER_SECRETS_DIR=%d" in directives("Environment")


def test_example_names_settings_and_no_secret() -> None:
    entries = re.findall(r"^#?([A-Z][A-Z0-9_]+)=(\S+)$", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    settings = {d.setting.name: d for d in iter_definitions()}
    assert len(entries) > 5
    for name, _value in entries:
        assert name in settings or name == "MLFLOW_S3_ENDPOINT_URL"
        assert name not in settings or not settings[name].is_secret
