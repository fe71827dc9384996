"""The commands in the documentation work: those that a test can run are run, all are parsed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import pytest

from mlflow_server import __version__
from mlflow_server.cli.main import cli
from tests.conftest import Postgres
from tests.standins.ae5.cluster import Cluster
from tests.standins.ae5.plugin import ae5_cluster as ae5_cluster
from tests.standins.ae5.plugin import ae5_installed as ae5_installed
from tests.standins.ae5.plugin import ae5_program as ae5_program
from tests.standins.ae5.program import Program
from tests.support.old_store_at import put_old_store
from tests.support.pages import Block, blocks
from tests.support.programs import (
    REPOSITORY,
    START_TIMEOUT_S,
    clean_environment,
    free_port,
    http,
    run_cli,
    serve,
)

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

PAGES = sorted(
    path
    for path in (
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("benchmarks/*.md"),
    )
    if "_templates" not in path.parts
)
LINUX = REPOSITORY / "docs/runbooks/deploy-linux.md"
AE5 = REPOSITORY / "docs/runbooks/ae5.md"
METRICS = REPOSITORY / "docs/metrics.md"
COLLECT = REPOSITORY / "docs/runbooks/garbage-collection.md"
BACK_UP = REPOSITORY / "docs/runbooks/backup.md"
RECOVER = REPOSITORY / "docs/runbooks/disaster-recovery.md"
MOVE = REPOSITORY / "docs/runbooks/move-to-postgresql.md"
UPGRADE = REPOSITORY / "docs/runbooks/upgrade.md"
# Its examples come from the code, and are parsed below like all others.
GENERATED = REPOSITORY / "docs/commands.md"
# Pages whose blocks a test below runs.
RUN = {LINUX, AE5, METRICS, COLLECT, BACK_UP, RECOVER, MOVE, UPGRADE, GENERATED}
COMMAND = re.compile(
    r"(?:(?:^|[\s`(/])mlflow-server(?:-as-service)?|python -m mlflow_server) +([a-z][^`\n|]*)"
)


def to_run(page: Path) -> Iterator[Block]:
    return (block for block in blocks(page) if block.reason is None)


def block_with(page: Path, text: str) -> Block:
    (found,) = [block for block in to_run(page) if text in block.commands]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_that_are_not_run_say_why(page: Path) -> None:
    left = [str(block) for block in to_run(page) if page not in RUN]
    assert left == [], "run them in a test, or write `<!-- not run: WHY -->` above them"


def test_blocks_are_found_at_all() -> None:
    assert len([*blocks(LINUX)]) > 10
    assert {page for page in PAGES if [*blocks(page)]} >= {LINUX, AE5, METRICS, GENERATED}


def commands_of(page: Path) -> Iterator[list[str]]:
    """The arguments of every command line of ours on a page, in blocks and in running text."""
    text = page.read_text("utf-8")
    sources = [block.commands for block in blocks(page)]
    sources += [found for found in re.findall(r"`([^`\n]+)`", text) if not found.startswith("--")]
    for source in sources:
        for line in source.replace("\\\n", " ").splitlines():
            for match in COMMAND.finditer(line):
                yield shlex.split(re.split(r"[|;>)]| #", match[1])[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_line_of_ours_is_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of commands and options exist, and take what they are given."""
    monkeypatch.setattr(os, "environ", clean_environment())
    for arguments in commands_of(page):
        name, *rest = arguments
        if name in ("…", "COMMAND") or rest[:1] == ["COMMAND"]:
            continue
        with click.Context(cli, info_name="mlflow-server") as parent:
            command = cli.get_command(parent, name)
            assert command is not None, f"{page.name}: there is no command {name!r}"
            while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
                name, *rest = rest
                command = command.get_command(parent, name)
                assert command is not None, f"{page.name}: there is no command {arguments}"
            try:
                # SHELL and the like stand for what a reader fills in.
                given = [word for word in rest if "=" in word or not word.isupper()]
                command.make_context(name, given, parent=parent)
            except (click.exceptions.Exit, click.MissingParameter):
                pass
            except click.UsageError as err:
                pytest.fail(f"{page.name}: {' '.join(arguments)}: {err.format_message()}")


def test_command_lines_are_found_at_all() -> None:
    assert ["doctor"] in list(commands_of(LINUX))
    assert ["serve", "--metrics"] in list(commands_of(METRICS))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a repository with a tag for the release, also where there is no git."""
    copy = tmp_path_factory.mktemp("repository") / "copy"
    kept = ("mlflow_server", "requirements", "deploy", "scripts", "docs")
    for name in kept:
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        [*who, "commit", "--quiet", "--message=Copy"],
        ["tag", __version__],
    ):
        subprocess.run(["git", "-C", str(copy), *command], check=True, capture_output=True)
    return copy


def user_environment(**extra: str) -> dict[str, str]:
    """As on a user's machine: our checkout and its environment are not in the way."""
    environment = clean_environment(**extra)
    del environment["PYTHONPATH"]
    environment.pop("VIRTUAL_ENV", None)
    return environment


@pytest.mark.xdist_group("ae5-docs")
def test_anaconda_enterprise(
    repository: Path, ae5_cluster: Cluster, ae5_program: Program, tmp_path: Path
) -> None:
    """The runbook from top to bottom, on a stand-in of a cluster."""
    data = {
        "s3://company-backups/mlflow": str(tmp_path / "backups"),
        "/data/mlflow-upgrades": str(tmp_path / "upgrades"),
    }
    site = AE5.read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]
    for old, new in data.items():
        site = site.replace(old, new)
    (repository / "release.yml").write_text(site)
    secrets = repository / "production.env"
    secrets.touch(0o600)
    secrets.write_text(
        f"MLFLOW_BACKEND_STORE_URI=sqlite:///{tmp_path}/data/store.db\n"
        f"MLFLOW_ARTIFACTS_DESTINATION={tmp_path}/data/artifacts\n"
    )
    environment = clean_environment(**ae5_program.environment)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    replace = {"AE5_HOST": ae5_cluster.authority, "1.0.0": __version__}
    ran = [block.run(replace, folder=repository, environment=environment) for block in to_run(AE5)]
    assert len(ran) == 9
    assert (ae5_cluster.deployments, ae5_cluster.jobs) == ([], [])
    (repository / "release.yml").unlink()


def test_installation_on_linux(repository: Path, tmp_path: Path) -> None:
    """The runbook from top to bottom, in folders of this test instead of the machine's."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    for folder in ("usr/local/src", "usr/local/sbin", "opt/mlflow-server", "etc", "var", "user"):
        (tmp_path / folder).mkdir(parents=True)
    replace = {
        "sudo ": "",
        "VERSION": __version__,
        "REPOSITORY": repository.as_uri(),
        "python3.11 -m venv": f"{sys.executable} -m venv",
        **{f"/{name}/": f"{tmp_path}/{name}/" for name in ("usr/local", "opt", "etc")},
        "https://mlflow.example.com": url,
        "http://127.0.0.1:5000": url,
    }
    sources = tmp_path / "usr/local/src/mlflow-tracking-server"
    environment = user_environment()
    after_start = ("/readyz", "MLFLOW_TRACKING_URI=")
    steps = [*to_run(LINUX)]
    later = [step for step in steps if any(word in step.commands for word in after_start)]
    for step in steps:
        if step in later:
            continue
        if "/dev/stdin" in step.commands:
            _enter_secret(step, replace, tmp_path)
            continue
        folder = sources if sources.exists() else tmp_path
        step.run(replace, folder=folder, environment=environment)
    assert len(steps) - len(later) >= 4

    secret = tmp_path / "etc/credstore/mlflow-server.MLFLOW_BACKEND_STORE_URI"
    assert secret.stat().st_mode & 0o777 == 0o600
    helper = tmp_path / "usr/local/sbin/mlflow-server-as-service"
    assert os.access(helper, os.X_OK)
    subprocess.run(["sh", "-n", str(helper)], check=True)

    programs = tmp_path / "opt/mlflow-server/venv/bin"
    command = [str(programs / "mlflow-server"), "serve", "--port", str(port)]
    store = {"MLFLOW_BACKEND_STORE_URI": secret.read_text("utf-8")}
    with _running(command, url, tmp_path / "var", {**environment, **store}):
        users = {**environment, "PATH": f"{programs}:{environment['PATH']}"}
        for step in later:
            step.run(replace, folder=tmp_path / "user", environment=users)
    assert (tmp_path / "var/my.db").exists()


def _enter_secret(step: Block, replace: dict[str, str], folder: Path) -> None:
    """Run a step that reads a secret from the terminal."""
    uri = f"sqlite:///{folder}/var/my.db\n"
    typed = Block(step.page, step.line, step.commands.replace("/dev/stdin", "/dev/fd/3"))
    script = Block(step.page, step.line, f"exec 3< <(printf %s {shlex.quote(uri)})\n")
    both = Block(step.page, step.line, script.commands + typed.commands)
    both.run(replace, folder=folder, environment=user_environment())


@contextlib.contextmanager
def _running(
    command: Sequence[str], url: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server of some installation until the end of the block, which it must reach well."""
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(url, server, log)
        yield
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text("utf-8")
        try:
            if http(f"{url}/readyz").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text("utf-8"))


def test_page_about_metrics(tmp_path: Path) -> None:
    with serve(tmp_path / "project", "--metrics") as server:
        for block in to_run(METRICS):
            replace = {"http://127.0.0.1:5000": server.url}
            block.run(replace, folder=tmp_path, environment=user_environment())


def _make_store(folder: Path) -> dict[str, str]:
    """A store with one of everything that the pages speak of; its settings."""
    artifacts, uri = folder / "artifacts", f"sqlite:///{folder}/my.db"
    artifacts.mkdir(parents=True)
    subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support/gc_store.py"), uri, str(artifacts)],
        env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        check=True,
        capture_output=True,
        timeout=120,
    )
    return {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_ARTIFACTS_DESTINATION": str(artifacts)}


def _run_page(page: Path, folder: Path, settings: Mapping[str, str], **replace: str) -> list[str]:
    """Run the blocks of a page, one after the other; what they print."""
    environment = clean_environment(**settings)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ours = {"mlflow-server": f"{sys.executable} -m mlflow_server", **replace}
    return [block.run(ours, folder=folder, environment=environment) for block in to_run(page)]


def test_garbage_collection(tmp_path: Path) -> None:
    assert len(_run_page(COLLECT, tmp_path, _make_store(tmp_path))) == 3


def _without_foreign_versions(settings: Mapping[str, str]) -> None:
    """The version whose files are in a bucket of somebody else is a finding of its own."""
    path = settings["MLFLOW_BACKEND_STORE_URI"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM model_versions WHERE storage_location LIKE 's3:%'")


def test_backup(tmp_path: Path) -> None:
    settings = _make_store(tmp_path / "srv")
    _without_foreign_versions(settings)
    backups = {"/backups": str(tmp_path / "backups")}
    assert len(_run_page(BACK_UP, tmp_path, settings, **backups)) == 6


def test_disaster_recovery(tmp_path: Path) -> None:
    """The server's folder is lost, and another one takes its place."""
    settings = _make_store(tmp_path / "srv")
    _without_foreign_versions(settings)
    made = run_cli("backup", "create", "--to", str(tmp_path / "backups"), cwd=tmp_path,
                   environment=settings)  # fmt: skip
    assert made.returncode == 0, made.stderr
    shutil.rmtree(tmp_path / "srv")
    new = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/recovered/store.db",
        "MLFLOW_ARTIFACTS_DESTINATION": f"{tmp_path}/recovered/artifacts",
        "MLFLOW_PORT": str(free_port()),
    }
    places = {"/backups": str(tmp_path / "backups"), "/recovered": str(tmp_path / "recovered")}
    assert len(_run_page(RECOVER, tmp_path, new, **places)) == 4


def test_move_to_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    settings = _make_store(tmp_path / "srv")
    _without_foreign_versions(settings)
    settings["TRACKING_SERVER_TO_BACKEND_STORE_URI"] = postgres.new_database()
    assert len(_run_page(MOVE, tmp_path, settings)) == 2


def test_upgrade(tmp_path: Path) -> None:
    uri = put_old_store("2.9.2", tmp_path, None)
    assert len(_run_page(UPGRADE, tmp_path, {"MLFLOW_BACKEND_STORE_URI": uri})) == 6


@pytest.mark.parametrize("script", ["scripts/ae5", "scripts/release"])
def test_scripts_for_releases_are_the_commands(script: str, tmp_path: Path) -> None:
    """With an environment that is already there, from any folder."""
    ended = subprocess.run(
        [str(REPOSITORY / script), "--help"],
        env=user_environment(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    name = {"scripts/ae5": "ae5", "scripts/release": "ae5 release"}[script]
    assert ended.stdout.startswith(f"Usage: mlflow-server {name} [OPTIONS]")


def test_scripts_serve_serves(tmp_path: Path) -> None:
    """The first of the two commands, with an environment that is already there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    store = f"sqlite:///{tmp_path}/my.db"
    options = ["--port", str(port), "--backend-store-uri", store]
    options += ["--artifacts-destination", str(tmp_path / "artifacts")]
    command = [str(REPOSITORY / "scripts/serve"), *options]
    with _running(command, url, tmp_path, user_environment()):
        pass
