"""`ae5 release` and `ae5 rollback`: the whole way."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.ae5_shared import (
    dry_run_option,
    open_server,
    release_options,
    values_file_option,
    wait_option,
)
from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    load,
    make_report,
    own_option,
    pass_context,
    stop_on_sigterm,
)
from mlflow_server.report import Item, Report, Status

if TYPE_CHECKING:
    from mlflow_server.ae5.build import Release
    from mlflow_server.ae5.exchange import Candidate
    from mlflow_server.ae5.release_file import ReleaseFile
    from mlflow_server.ae5.server import Server
    from mlflow_server.ae5.steps import Options, Step

# A start takes minutes, an upgrade or a restore perhaps hours.
_WAIT_S = 7200

_RELEASE_EPILOG = """\b
Examples:
  mlflow-server ae5 release --values-file production.env --dry-run
  mlflow-server ae5 release dist/mlflow.tracking.server.1.1.0.tar.gz --upgrade
  mlflow-server ae5 release --restore s3://company-backups/mlflow/latest

Plans first; run again, it goes on where it stopped, and does nothing when all is as wanted. Another
release is uploaded beside the one that runs, asked in a job whether the database fits it, and takes
its place and its name; a copy of the one before is kept (rollback). Clients need the new token
after each start."""

_ROLLBACK_EPILOG = """\b
Examples:
  mlflow-server ae5 rollback --dry-run
  mlflow-server ae5 rollback

The release that ran before is uploaded again, asked in a job whether the database fits it, and
takes the place of the one that runs, of which a copy is kept: the same again goes forth. Exit code
4 when the database does not fit; nothing is stopped then."""


@click.command("release", epilog=_RELEASE_EPILOG)
@click.argument("archive", required=False, type=click.Path(path_type=Path), metavar="[ARCHIVE]")
@release_options
@values_file_option
@own_option("--replace", "Replace what is there; what becomes of it is told below.", is_flag=True)
@own_option(
    "--upgrade",
    "Upgrade the database where the release needs it, while no server runs.",
    is_flag=True,
)
@own_option("--restore", "A backup to restore before the first start.", metavar="BACKUP")
@wait_option(_WAIT_S)
@dry_run_option
@common_options
@pass_context
def release(
    context: Context,
    archive: Path | None,
    wanted: "ReleaseFile",
    values_file: Path | None,
    replace: bool,
    upgrade: bool,
    restore: str | None,
    wait_ready: int,
    dry_run: bool,
) -> None:
    """Bring a release into service: from the archive to a server that has logged a run.

    ARCHIVE is one that `ae5 build` has made; without it, it is built from this folder.
    """
    load(context)
    from mlflow_server.ae5.build import make_release
    from mlflow_server.ae5.credentials import read_values
    from mlflow_server.ae5.customise import Customisation
    from mlflow_server.ae5.exchange import Candidate
    from mlflow_server.ae5.projects import tag_of
    from mlflow_server.ae5.steps import Options

    if archive and not archive.name.endswith(".tar.gz"):
        raise click.BadParameter(f"{archive}: is no .tar.gz", param_hint="ARCHIVE")
    server = open_server(context, wanted, wait_ready)
    values = read_values((), values_file, os.environ, lambda name: None) if values_file else {}
    made = make_release(archive or Path(), Customisation(wanted.variables, wanted.packages))
    candidate = Candidate(tag_of(made), lambda path: _write(path, made))
    options = Options(values, replace, upgrade, restore)
    with stop_on_sigterm():
        _roll_out(context, server, candidate, options, is_dry_run=dry_run)


@click.command("rollback", epilog=_ROLLBACK_EPILOG)
@release_options
@wait_option(_WAIT_S)
@dry_run_option
@common_options
@pass_context
def rollback(context: Context, wanted: "ReleaseFile", wait_ready: int, dry_run: bool) -> None:
    """Go back to the release that ran before, at the same endpoint, if the database fits it."""
    from mlflow_server.ae5.release import go_back
    from mlflow_server.ae5.steps import Options

    server = open_server(context, wanted, wait_ready)
    with stop_on_sigterm():
        candidate = go_back(server, is_dry_run=dry_run)
        options = Options(replaces=True, is_rollback=True)
        _roll_out(context, server, candidate, options, is_dry_run=dry_run)


def _write(path: Path, made: "Release") -> None:
    path.write_bytes(made.content)


def _roll_out(
    context: Context,
    server: "Server",
    candidate: "Candidate",
    options: "Options",
    *,
    is_dry_run: bool,
) -> None:
    from mlflow_server.ae5.release import Rollout

    rollout = Rollout(server, candidate, options)
    steps = rollout.plan()
    left = [step.name for step in steps if not step.is_done]

    def done(step: "Step") -> None:
        if context.verbosity >= 0:
            click.echo(f"{step.name}: done", err=True)

    if not is_dry_run:
        rollout.run(steps, done)
    there = rollout.deployment
    data = {
        "dry_run": is_dry_run,
        "project": server.wanted.project,
        "release": candidate.tag,
        "url": there.url if there else None,
        "deployment": there.id if there else None,
        "ae5_calls": server.ae5.calls,
    }
    report = make_report(context, _items(steps, left), data=data)
    finish(context, report, _echo)


def _items(steps: "Sequence[Step]", left: Sequence[str]) -> list[Item]:
    return [
        Item(
            step.name,
            Status.OK,
            step.detail,
            facts={"is_new": step.name in left},
        )
        for step in steps
    ]


def _echo(_context: Context, report: Report) -> None:
    width = max(len(item.name) for item in report.items)
    is_plan = report.data["dry_run"]
    for item in report.items:
        mark = ("to do" if is_plan else "done") if item.facts["is_new"] else "-"
        click.echo(f"{mark:<6}{item.name:<{width}}  {item.detail}")
    if is_plan:
        click.echo("Nothing was changed.")
    elif not any(item.facts["is_new"] for item in report.items):
        click.echo(f"{report.data['url']}: all is as wanted; nothing was changed.")
    else:
        click.echo(f"{report.data['url']}: {report.data['release']} is in service.")
