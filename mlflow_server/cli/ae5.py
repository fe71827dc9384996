"""`ae5`: releases on Anaconda Enterprise 5."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from mlflow_server.ae5.contents import PROJECT
from mlflow_server.cli import ae5_jobs, ae5_release, ae5_server
from mlflow_server.cli.ae5_shared import Pair, open_ae5, values_file_option
from mlflow_server.cli.groups import Group
from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    load,
    own_option,
    pass_context,
    stop_on_sigterm,
)

EPILOG = """\b
Examples:
  mlflow-server ae5 release --values-file production.env --dry-run
  mlflow-server ae5 build --out dist
  mlflow-server ae5 upload dist/mlflow.tracking.server.1.0.0.tar.gz
  mlflow-server ae5 deploy
  mlflow-server ae5 schedule gc --cron "*/10 * * * *"

release goes the whole way; its steps are commands of their own."""

_BUILD_EPILOG = """\b
Examples:
  mlflow-server ae5 build
  mlflow-server ae5 build --set MLFLOW_TRACKING_GC_TTL=7d0h0m0s --add-package mlflow-oidc-auth==5.6
  mlflow-server ae5 build --from mlflow.tracking.server.1.0.0.tar.gz --set MLFLOW_PORT=8086

Run it in a checkout of this project, or give it an archive. The same files make the same bytes. A
package with :: is one of conda (channel::package), any other one of pip. No secrets: everybody who
has the archive can read them."""


_UPLOAD_EPILOG = """\b
Examples:
  mlflow-server ae5 upload dist/mlflow.tracking.server.1.0.0.tar.gz
  mlflow-server ae5 upload --name mlflow-dev --replace

Without an ARCHIVE it is built from this folder. An archive that is there already is not uploaded
again. Where the name is taken by another release, it gets its version at the end, or replaces that
one with --replace, which is then removed: only when nothing runs of it, by the clock or at all."""

_SECRETS_EPILOG = """\b
Examples:
  mlflow-server ae5 secrets list
  mlflow-server ae5 secrets set --values-file production.env
  mlflow-server ae5 secrets check MLFLOW_BACKEND_STORE_URI AWS_ACCESS_KEY_ID

The account's secrets are files in each of its sessions, deployments and jobs."""

_LIST_EPILOG = """\b
Examples:
  mlflow-server ae5 secrets list
  mlflow-server ae5 secrets list --json

Those that the server does not read are marked."""

_SET_EPILOG = """\b
Examples:
  mlflow-server ae5 secrets set --values-file production.env
  mlflow-server ae5 secrets set MLFLOW_BACKEND_STORE_URI --values-file uri.txt
  MLFLOW_BACKEND_STORE_URI=… mlflow-server ae5 secrets set MLFLOW_BACKEND_STORE_URI

Values come from a file of NAME=VALUE lines that nobody else may read, from standard input (-), or
from variables of these names; on a terminal they are asked for. They are never shown, and reach ae5
on its standard input. The platform takes minutes to mount them; the server reads them when it
starts."""

_CHECK_EPILOG = """\b
Examples:
  mlflow-server ae5 secrets check
  mlflow-server ae5 secrets check MLFLOW_BACKEND_STORE_URI AWS_ACCESS_KEY_ID

Exit code 3 when one is missing."""


class SecretName(click.ParamType[str]):
    """The name of a secret on the platform."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Judge it before anybody is asked."""
        from mlflow_server.ae5.names import require_secret_name

        return require_secret_name(str(value))


@click.group("ae5", cls=Group, epilog=EPILOG)
@common_options
def command() -> None:
    """Build, upload, deploy and run releases on Anaconda Enterprise 5."""


for _command in (
    ae5_release.release, ae5_release.rollback, ae5_server.deploy, ae5_server.url, ae5_server.token,
    ae5_server.share, ae5_jobs.schedule, ae5_jobs.run, ae5_server.restart, ae5_server.status,
    ae5_server.retire,
):  # fmt: skip
    command.add_command(_command)


@command.command("build", epilog=_BUILD_EPILOG)
@own_option(
    "--set",
    "A variable of the release, with its value; may be given again.",
    type=Pair(),
    multiple=True,
    metavar="NAME=VALUE",
)
@own_option(
    "--add-package",
    "A further package of the release; may be given again.",
    multiple=True,
    metavar="SPEC",
)
@own_option(
    "--from",
    "An archive that was built before, or a checkout.",
    type=click.Path(path_type=Path),
    metavar="PATH",
    default=Path(),
    show_default="this folder",
)
@own_option(
    "--out",
    "The folder that the archive is written to.",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    default=Path("dist"),
    show_default=True,
)
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@common_options
@pass_context
def build(
    context: Context,
    /,
    set: tuple[tuple[str, str], ...],
    add_package: tuple[str, ...],
    out: Path,
    dry_run: bool,
    **others: Path,
) -> None:
    """Make the archive of a release, with its checksum and a list of what is in it."""
    load(context)
    from mlflow_server.ae5.build import make_release, write_release
    from mlflow_server.ae5.customise import Customisation
    from mlflow_server.cli.ae5_report import built_report, echo_built

    release = make_release(others["from"], Customisation(dict(set), add_package))
    path = out / release.name
    if not dry_run:
        with stop_on_sigterm():
            write_release(release, out)
    finish(context, built_report(context, release, path, is_dry_run=dry_run), echo_built)


@command.command("upload", epilog=_UPLOAD_EPILOG)
@click.argument("archive", required=False, type=click.Path(path_type=Path), metavar="[ARCHIVE]")
@own_option(
    "--name", "What the project is called.", default=PROJECT, show_default=True, metavar="NAME"
)
@own_option("--replace", "Replace what is there; what becomes of it is told below.", is_flag=True)
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@common_options
@pass_context
def upload(context: Context, archive: Path | None, name: str, replace: bool, dry_run: bool) -> None:
    """Have a release on the platform as a project.

    ARCHIVE is one that `ae5 build` has made.
    """
    from mlflow_server.ae5.build import make_release, read_release
    from mlflow_server.ae5.customise import Customisation
    from mlflow_server.ae5.projects import plan_upload
    from mlflow_server.ae5.projects import upload as do_upload
    from mlflow_server.cli.ae5_report import echo_uploaded, uploaded_report

    if archive and not archive.name.endswith(".tar.gz"):
        raise click.BadParameter(f"{archive}: is no .tar.gz", param_hint="ARCHIVE")
    ae5 = open_ae5(context)
    release = read_release(archive) if archive else make_release(Path(), Customisation())
    with stop_on_sigterm():
        plan = plan_upload(ae5, release, name, replaces=replace)
        project = plan.project if dry_run else do_upload(ae5, release, plan)
    report = uploaded_report(context, release, plan, project, is_dry_run=dry_run)
    finish(context, report, echo_uploaded)


@command.group("secrets", cls=Group, epilog=_SECRETS_EPILOG)
@common_options
def secrets() -> None:
    """Set, list and check the account's secrets on the platform."""


@secrets.command("list", epilog=_LIST_EPILOG)
@common_options
@pass_context
def list_secrets(context: Context) -> None:
    """List the names of the secrets; nobody can read their values."""
    ae5 = open_ae5(context)
    from mlflow_server.ae5.credentials import check_secrets
    from mlflow_server.cli.ae5_report import echo_secrets, secrets_report

    finish(context, secrets_report(context, check_secrets(ae5, ())), echo_secrets)


@secrets.command("check", epilog=_CHECK_EPILOG)
@click.argument("names", nargs=-1, type=SecretName(), metavar="[NAME]…")
@common_options
@pass_context
def check_secrets(context: Context, names: tuple[str, ...]) -> None:
    """Find out whether secrets are there; without a NAME those that a server needs."""
    ae5 = open_ae5(context)
    from mlflow_server.ae5.credentials import NEEDED
    from mlflow_server.ae5.credentials import check_secrets as check
    from mlflow_server.cli.ae5_report import echo_secrets, secrets_report

    finish(context, secrets_report(context, check(ae5, names or NEEDED)), echo_secrets)


@secrets.command("set", epilog=_SET_EPILOG)
@click.argument("names", nargs=-1, type=SecretName(), metavar="[NAME]…")
@values_file_option
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@common_options
@pass_context
def set_secrets(
    context: Context, names: tuple[str, ...], values_file: Path | None, dry_run: bool
) -> None:
    """Set secrets, each NAME or all of a file."""
    ae5 = open_ae5(context)
    from mlflow_server.ae5.credentials import read_values
    from mlflow_server.ae5.credentials import set_secrets as do_set
    from mlflow_server.cli.ae5_report import echo_set, set_report

    if not names and values_file is None:
        raise click.UsageError("say which secrets to set, or give a file: --values-file")

    def ask(name: str) -> str | None:
        if not sys.stdin.isatty():
            return None
        return str(click.prompt(name, hide_input=True, err=True))

    values = read_values(names, values_file, os.environ, ask)
    if not dry_run:
        with stop_on_sigterm():
            do_set(ae5, values)
    finish(context, set_report(context, list(values), is_dry_run=dry_run), echo_set)
