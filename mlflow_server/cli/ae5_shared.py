"""What commands of `ae5` share: the program, the release file, and options that beat it."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_server.cli.shared import Context, F, load, own_option

if TYPE_CHECKING:
    from mlflow_server.ae5.program import Ae5
    from mlflow_server.ae5.release_file import ReleaseFile
    from mlflow_server.ae5.server import Server


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


def dry_run_option(function: F) -> F:
    """For what changes something on the platform."""
    return own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)(
        function
    )


def values_file_option(function: F) -> F:
    """Where the values of secrets come from."""
    return own_option(
        "--values-file",
        "NAME=VALUE lines; - for standard input. For one NAME, its value alone.",
        type=click.Path(path_type=Path),
        metavar="FILE",
    )(function)


def wait_option(default: int) -> Callable[[F], F]:
    """How long a command waits for the platform, seconds."""
    return own_option(
        "--wait-ready",
        "How long to wait for the platform, seconds.",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        metavar="N",
    )


def release_options(function: F) -> F:
    """The release file, and what beats it; reaches the command as `wanted`."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from mlflow_server.ae5.release_file import read_release_file

        file = kwargs.pop("release_file")
        given = {name: kwargs.pop(name) for name in ("project", "endpoint")}
        given = {name: value for name, value in given.items() if value is not None}
        wanted = read_release_file(file)
        if given:
            wanted = _changed(wanted, given)
        return function(*args, wanted=wanted, **kwargs)

    decorated: Any = wrapper
    for option in (
        own_option("--endpoint", "The endpoint, if not as in the release file.", metavar="NAME"),
        own_option("--project", "The project, if not as in the release file.", metavar="NAME"),
        own_option(
            "--release-file",
            "What the site wants; without it release.yml of this folder, if there is one.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _changed(wanted: "ReleaseFile", given: dict[str, str]) -> "ReleaseFile":
    from mlflow_server.ae5.names import require_endpoint, require_name

    checks = {"project": lambda v: require_name(v, "project"), "endpoint": require_endpoint}
    return wanted.model_copy(update={name: checks[name](value) for name, value in given.items()})


def open_ae5(context: Context) -> "Ae5":
    """The operator's program."""
    load(context)
    from mlflow_server.ae5.program import Ae5, find_program

    path = find_program(os.environ.get("TRACKING_SERVER_AE5"), os.environ.get("PATH"))
    return Ae5(path, os.environ)


def open_server(context: Context, wanted: "ReleaseFile", wait_s: float) -> "Server":
    """The server that a site wants."""
    ae5 = open_ae5(context)
    from mlflow_server.ae5.server import Server

    return Server(ae5, wanted, os.environ, wait_s, telling(context))


def telling(context: Context) -> Callable[[str], None]:
    """Says what is being waited for, once each, where somebody reads it."""
    told: list[str] = []

    def tell(what: str) -> None:
        if context.verbosity >= 0 and told[-1:] != [what]:
            told.append(what)
            click.echo(f"{what} …", err=True)

    return tell
