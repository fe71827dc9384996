"""`ae5`: releases on Anaconda Enterprise 5."""

from pathlib import Path
from typing import Any

import click

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
  mlflow-server ae5 build --out dist

Steps of a release on Anaconda Enterprise 5, each a command of its own."""

_BUILD_EPILOG = """\b
Examples:
  mlflow-server ae5 build
  mlflow-server ae5 build --set MLFLOW_TRACKING_GC_TTL=7d0h0m0s --add-package mlflow-oidc-auth==5.6
  mlflow-server ae5 build --from mlflow.tracking.server.1.0.0.tar.gz --set TRACKING_SERVER_X=1

Run it in a checkout of this project, or give it an archive. The same files make the same bytes. A
package with :: is one of conda (channel::package), any other one of pip. No secrets: everybody who
has the archive can read them."""


class Pair(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`."""

    name = "pair"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split; the value is not repeated, whatever it is."""
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not (name.strip() and separator):
            self.fail("is not of the form NAME=VALUE", param, ctx)
        return name.strip(), text


@click.group("ae5", cls=Group, epilog=EPILOG)
@common_options
def command() -> None:
    """Build, upload, deploy and run releases on Anaconda Enterprise 5."""


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
