"""The generated pages are those of this code, and what stands in their templates is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from mlflow_server.errors import ExitCode, OpsError
from mlflow_server.log import FIELDS
from mlflow_server.report import Report, Status
from mlflow_server.settings.model import iter_definitions
from tests.support.programs import REPOSITORY, clean_environment

PAGES = ("settings.md", "commands.md")
DOCS = REPOSITORY / "docs"


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/docs"), *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=REPOSITORY,
    )


def read(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def test_the_pages_are_those_of_this_code() -> None:
    done = generate("--check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_generator_writes_what_its_check_accepts(tmp_path: Path) -> None:
    assert generate(str(tmp_path)).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == set(PAGES)
    assert generate("--check", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_check_finds_a_page_that_differs(tmp_path: Path, page: str) -> None:
    generate(str(tmp_path))
    path = tmp_path / page
    path.write_text(path.read_text("utf-8").replace("5000", "5001", 1), "utf-8")
    changed = path.read_text("utf-8")
    done = generate("--check", str(tmp_path))
    assert done.returncode == 1
    assert f"{path} differs from the code: run scripts/docs" in done.stderr
    assert "5001" in done.stdout
    assert path.read_text("utf-8") == changed


def test_the_check_finds_a_page_that_is_missing(tmp_path: Path) -> None:
    assert generate("--check", str(tmp_path)).returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(page: str) -> None:
    assert "{{" not in read(page)


def test_every_setting_has_its_line() -> None:
    text = read("settings.md")
    for definition in iter_definitions():
        (line,) = re.findall(rf"^\| `{definition.setting.name}` \|.*$", text, re.MULTILINE)
        assert definition.setting.meaning in line
        assert line.endswith("| yes |") is definition.is_secret


def test_every_exit_code_has_its_line() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", read("commands.md"), re.MULTILINE)
    assert rows == [(str(int(code)), code.meaning) for code in ExitCode]


def test_every_key_of_a_json_log_line_is_explained() -> None:
    section = read("commands.md").partition("### Logs")[2].partition("\n## ")[0]
    keys = ["time", "level", "logger", "pid", "msg", "error", *FIELDS]
    assert [key for key in keys if f"`{key}`" not in section] == []


def test_every_field_of_the_json_document_is_explained() -> None:
    section = read("commands.md").partition("### JSON")[2].partition("\n### ")[0]
    now = datetime.now(UTC)
    report = Report("x", now, now, ExitCode.FAILED, error=OpsError("why"))
    fields = [*json.loads(report.as_json()), *(status.value for status in Status)]
    fields += ["name", "status", "detail", "fix", "facts", "message", "hint"]
    assert [name for name in fields if f"`{name}`" not in section] == []


def test_every_path_that_the_server_answers_itself_is_explained() -> None:
    from mlflow_server.server.front import _PROBES

    section = read("commands.md").partition("## Health endpoints")[2].partition("\n## ")[0]
    assert [path for path in (*_PROBES, "/metrics") if f"`{path}`" not in section] == []


@pytest.mark.parametrize("page", [*PAGES, "design/settings.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = read(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        assert (DOCS / page).parent.joinpath(place).exists(), link
        if not place:
            assert anchor in anchors, link


def walk(command: click.Command) -> Iterator[click.Command]:
    """A command, and if it is a group all below it."""
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found)


@pytest.mark.parametrize("page", [*PAGES, "design/settings.md"])
def test_only_settings_that_exist_are_named(page: str) -> None:
    """Also in what is written by hand."""
    from mlflow_server.cli.main import cli

    options = [option for command in walk(cli) for option in command.params]
    names = {definition.setting.name for definition in iter_definitions()}
    names |= {str(option.envvar) for option in options if option.envvar}
    named = set(re.findall(r"\bTRACKING_SERVER_[A-Z0-9_]+\b", read(page)))
    assert named - names == set()
