"""`ae5 deploy`, `url`, `token`, `restart`: the server of a release."""

import contextlib
import os
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
  mlflow-server ae5 token --out mlflow.token

Stored as the secret MLFLOW_TRACKING_TOKEN, for the account's jobs. For others it goes into a file
that only you may read; it is never shown. Each restart makes another one."""

_RESTART_EPILOG = """\b
Examples:
  mlflow-server ae5 restart
  mlflow-server ae5 restart --dry-run

Stops the server and starts it anew at the same endpoint, with the secrets as they are now. The
deployment gets another id, and another token, which is stored: clients need it."""


@click.command("deploy", epilog=_DEPLOY_EPILOG)
@release_options
@wait_option(_START_S)
@dry_run_option
@common_options
@pass_context
def deploy(context: Context, wanted: "ReleaseFile", wait: int, dry_run: bool) -> None:
    """Start the tracking server of an uploaded release, and wait until it answers."""
    from mlflow_server.cli.ae5_report import deployed_report, echo_deployed

    server = open_server(context, wanted, wait)
    with stop_on_sigterm():
        done = server.deploy(is_dry_run=dry_run)
    report = deployed_report(context, wanted.endpoint, done, is_dry_run=dry_run)
    finish(context, report, echo_deployed)


@click.command("restart", epilog=_RESTART_EPILOG)
@release_options
@wait_option(_START_S)
@dry_run_option
@common_options
@pass_context
def restart(context: Context, wanted: "ReleaseFile", wait: int, dry_run: bool) -> None:
    """Stop the server, start it anew, and store its new token."""
    from mlflow_server.cli.ae5_report import deployed_report, echo_deployed

    server = open_server(context, wanted, wait)
    with stop_on_sigterm():
        done = server.restart(is_dry_run=dry_run)
    report = deployed_report(context, wanted.endpoint, done, is_dry_run=dry_run)
    finish(context, report, echo_deployed)


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
    "--out",
    "A file for the token, too; only you may read it.",
    type=click.Path(path_type=Path),
    metavar="FILE",
)
@dry_run_option
@common_options
@pass_context
def token(context: Context, wanted: "ReleaseFile", out: Path | None, dry_run: bool) -> None:
    """Store the server's token for the account's jobs, and perhaps in a file."""
    from mlflow_server.ae5.server import TOKEN
    from mlflow_server.cli.ae5_report import echo_handed, handed_report

    server = open_server(context, wanted, 0)
    with stop_on_sigterm():
        deployment = server.deployment()
        if not dry_run:
            content = server.hand_out_token(deployment)
            if out is not None:
                _write_privately(out, content)
    report = handed_report(context, deployment, (TOKEN,), out, is_dry_run=dry_run)
    finish(context, report, echo_handed)


def _write_privately(path: Path, content: str) -> None:
    from mlflow_server.errors import UnavailableError

    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{content}\n")
        part.replace(path)
    except OSError as err:
        raise UnavailableError(f"{path}: cannot be written: {err.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
