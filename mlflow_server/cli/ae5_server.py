"""`ae5 deploy`, `url`, `token`, `restart`, `share`, `status`, `retire`: the server of a release."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.ae5_shared import (
    dry_run_option,
    open_server,
    release_options,
    wait_option,
)
from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    own_option,
    pass_context,
    stop_on_sigterm,
)

if TYPE_CHECKING:
    from mlflow_server.ae5.release_file import ReleaseFile
    from mlflow_server.ae5.server import Deployed, Server

# The platform makes the environment first, which takes minutes.
_START_S = 1800

_DEPLOY_EPILOG = """\b
Examples:
  mlflow-server ae5 deploy
  mlflow-server ae5 deploy --endpoint mlflow-dev --release-file dev.yml

Private, at a static endpoint. Ends when /readyz answers through the platform; run again, it leaves
a server that is there as it is. 75 or 69 when it takes longer: the platform goes on."""

_URL_EPILOG = """\b
Examples:
  mlflow-server ae5 url
  mlflow-server ae5 url --dry-run

Stored as the secrets MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI, for the account's jobs."""

_HAND_OUT_EPILOG = """\b
Examples:
  mlflow-server ae5 token
  mlflow-server ae5 token --to-file mlflow.token

Stored as the secret MLFLOW_TRACKING_TOKEN, for the account's jobs. For others it goes into a file
that only you may read; it is never shown. Each restart makes another one."""

_RESTART_EPILOG = """\b
Examples:
  mlflow-server ae5 restart
  mlflow-server ae5 restart --dry-run

Stops the server and starts it anew at the same endpoint, with the secrets as they are now. The
deployment gets another id, and another token, which is stored: clients need it."""


_SHARE_EPILOG = """\b
Examples:
  mlflow-server ae5 share --everyone
  mlflow-server ae5 share --group data-science --user ada

Who may open the server in a browser, beside the account. Programs need the token in any case."""

_STATUS_EPILOG = """\b
Examples:
  mlflow-server ae5 status
  mlflow-server ae5 status --json

Deployment, health through the platform, project, names of secrets, schedules with their last runs.
Exit code 3 when something is not as it should be, each with what to do."""

_RETIRE_EPILOG = """\b
Examples:
  mlflow-server ae5 retire --dry-run
  mlflow-server ae5 retire --yes

The server is stopped and the scheduled jobs of the release are deleted, unless another server of
the project runs at another endpoint. Database, artifacts, backups, secrets and the project stay."""


def _starting(
    name: str, epilog: str, what: str, start: "Callable[[Server, bool], Deployed]"
) -> click.Command:
    """A command that ends when a server has started."""

    @click.command(name, epilog=epilog, help=what)
    @release_options
    @wait_option(_START_S)
    @dry_run_option
    @common_options
    @pass_context
    def command(context: Context, wanted: "ReleaseFile", wait_ready: int, dry_run: bool) -> None:
        from mlflow_server.cli.ae5_report import deployed_report, echo_deployed

        server = open_server(context, wanted, wait_ready)
        with stop_on_sigterm():
            done = start(server, dry_run)
        report = deployed_report(context, wanted.endpoint, done, is_dry_run=dry_run)
        finish(context, report, echo_deployed)

    return command


deploy = _starting(
    "deploy",
    _DEPLOY_EPILOG,
    "Start the tracking server of an uploaded release, and wait until it answers.",
    lambda server, is_dry_run: server.deploy(is_dry_run=is_dry_run),
)
restart = _starting(
    "restart",
    _RESTART_EPILOG,
    "Stop the server, start it anew, and store its new token.",
    lambda server, is_dry_run: server.restart(is_dry_run=is_dry_run),
)


@click.command("url", epilog=_URL_EPILOG)
@release_options
@dry_run_option
@common_options
@pass_context
def url(context: Context, wanted: "ReleaseFile", dry_run: bool) -> None:
    """Print the server's address, and store it for the account's jobs."""
    from mlflow_server.ae5.server import ADDRESSES
    from mlflow_server.cli.ae5_report import echo_handed, handed_report

    server = open_server(context, wanted, 0)
    with stop_on_sigterm():
        deployment = server.deployment()
        if not dry_run:
            server.hand_out_addresses(deployment)
    report = handed_report(context, deployment, ADDRESSES, is_dry_run=dry_run)
    finish(context, report, echo_handed)


@click.command("token", epilog=_HAND_OUT_EPILOG)
@release_options
@own_option(
    "--to-file",
    "A file for the token, too; only you may read it.",
    type=click.Path(path_type=Path),
    metavar="FILE",
)
@dry_run_option
@common_options
@pass_context
def token(context: Context, wanted: "ReleaseFile", to_file: Path | None, dry_run: bool) -> None:
    """Store the server's token for the account's jobs, and perhaps in a file."""
    from mlflow_server.ae5.server import TOKEN
    from mlflow_server.cli.ae5_report import echo_handed, handed_report

    server = open_server(context, wanted, 0)
    with stop_on_sigterm():
        deployment = server.deployment()
        if not dry_run:
            content = server.hand_out_token(deployment)
            if to_file is not None:
                _write_privately(to_file, content)
    report = handed_report(context, deployment, (TOKEN,), to_file, is_dry_run=dry_run)
    finish(context, report, echo_handed)


def _write_privately(path: Path, content: str) -> None:
    from mlflow_server.ae5.written import write_whole
    from mlflow_server.errors import UnavailableError

    try:
        write_whole(path, f"{content}\n".encode(), 0o600)
    except OSError as err:
        raise UnavailableError(f"{path}: cannot be written: {err.strerror}") from None


@click.command("share", epilog=_SHARE_EPILOG)
@release_options
@own_option("--everyone", "All who can sign in.", is_flag=True)
@own_option("--group", "A group; may be given again.", multiple=True, metavar="NAME")
@own_option("--user", "A user; may be given again.", multiple=True, metavar="NAME")
@dry_run_option
@common_options
@pass_context
def share(
    context: Context,
    wanted: "ReleaseFile",
    everyone: bool,
    group: tuple[str, ...],
    user: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Let others open the server in a browser; without a name as the release file has it."""
    from mlflow_server.ae5.release_file import ShareFile
    from mlflow_server.ae5.sharing import missing_readers, readers_of
    from mlflow_server.ae5.sharing import share as do_share
    from mlflow_server.cli.ae5_report import echo_shared, shared_report

    given = ShareFile(everyone=everyone, groups=group, users=user)
    readers = readers_of(given if everyone or group or user else wanted.share)
    if not readers:
        raise click.UsageError("say with whom: --everyone, --group NAME or --user NAME")
    server = open_server(context, wanted, 0)
    with stop_on_sigterm():
        deployment = server.deployment()
        missing = missing_readers(server.ae5, deployment, readers)
        if not dry_run:
            do_share(server.ae5, deployment, missing)
    report = shared_report(context, deployment, readers, missing, is_dry_run=dry_run)
    finish(context, report, echo_shared)


@click.command("status", epilog=_STATUS_EPILOG)
@release_options
@common_options
@pass_context
def status(context: Context, wanted: "ReleaseFile") -> None:
    """Show what there is of a release on the platform, and whether it is well."""
    from mlflow_server.ae5.status import look
    from mlflow_server.cli.ae5_report import status_report
    from mlflow_server.cli.shared import echo_items

    server = open_server(context, wanted, 0)
    finish(context, status_report(context, look(server.ae5, wanted, os.environ)), echo_items)


@click.command("retire", epilog=_RETIRE_EPILOG)
@release_options
@own_option("--yes", "Do not ask for confirmation.", is_flag=True)
@wait_option(300)
@dry_run_option
@common_options
@pass_context
def retire(
    context: Context, wanted: "ReleaseFile", yes: bool, wait_ready: int, dry_run: bool
) -> None:
    """Stop the server and delete its scheduled jobs; all data stay."""
    from mlflow_server.ae5.deployments import find_at, list_deployments, stop
    from mlflow_server.ae5.jobs import delete, list_jobs
    from mlflow_server.cli.ae5_report import echo_retired, retired_report
    from mlflow_server.errors import UsageError

    server = open_server(context, wanted, wait_ready)
    with stop_on_sigterm():
        deployments = list_deployments(server.ae5)
        deployment = find_at(deployments, wanted.endpoint)
        jobs = server.own_jobs(list_jobs(server.ae5), deployments)
        if not dry_run and (deployment or jobs):
            if not yes:
                if not sys.stdin.isatty():
                    raise UsageError(
                        f"endpoint {wanted.endpoint}: would be stopped",
                        hint="without a terminal: --yes",
                    )
                click.confirm(f"Stop what is at {wanted.endpoint}?", abort=True, err=True)
            # Jobs first: what they would begin meanwhile needs the server.
            for job in jobs:
                delete(server.ae5, job)
            if deployment is not None:
                stop(server.ae5, deployment, wait_ready)
    report = retired_report(context, deployment, jobs, is_dry_run=dry_run)
    finish(context, report, echo_retired)
