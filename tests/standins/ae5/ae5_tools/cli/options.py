"""Options that every command has, and what they said: sign-in, format, `--yes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..records import WITH_ID, Identifier, filter_for

_C = TypeVar("_C", bound=Callable[..., Any])


def said() -> dict[str, Any]:
    """The options of this call, from all levels of the command line and the environment."""
    told: dict[str, Any] = click.get_current_context().ensure_object(dict)
    return told


def keep(name: str, value: Any) -> None:
    """Remember an option.

    Raises:
        click.UsageError: It was given before, with another value.
    """
    told = said()
    if name == "filter":
        value = told.get(name, ()) + value
    elif name in told and not isinstance(told[name], bool) and told[name] != value:
        shown = name.replace("_", "-")
        raise click.UsageError(f"Conflicting values for --{shown}: {told[name]}, {value}")
    told[name] = value


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and value != ():
        keep(str(parameter.name), value)


def _option(*names: str, **settings: Any) -> Callable[[_C], _C]:
    return click.option(*names, expose_value=False, callback=_remember, hidden=True, **settings)


def _global_options() -> list[Callable[[Any], Any]]:
    texts = ("hostname", "username", "password", "admin-username", "admin-password", "k8s-endpoint")
    variables = {name: f"AE5_{name.upper().replace('-', '_')}" for name in texts}
    return [
        _option("--yes", is_flag=True),
        *(_option(f"--{name}", default=None, envvar=variables[name]) for name in texts),
        _option("--impersonate", is_flag=True, default=None, envvar="AE5_IMPERSONATE"),
        _option("--no-saved-logins", is_flag=True, default=None, envvar="AE5_NO_SAVED_LOGINS"),
        _option("--filter", multiple=True),
        _option("--columns", default=None),
        _option("--sort", default=None),
        _option("--format", type=click.Choice(["text", "csv", "json"]), default=None),
        _option("--width", type=int, default=None),
        _option("--wide", is_flag=True, default=None),
        _option("--header/--no-header", default=None),
    ]


def with_options(function: _C) -> _C:
    """Give a command the options that all have."""
    for option in reversed(_global_options()):
        function = option(function)
    return function


def yes(function: _C) -> _C:
    """A second `--yes`, as commands with a question have: new releases of click warn of it."""
    settings = {"is_flag": True, "expose_value": False, "callback": _remember}
    return click.option("--yes", help="Do not ask.", **settings)(function)


def identifier(
    kind: str, *, required: bool = True, with_revision: bool = False
) -> Callable[[_C], _C]:
    """The argument that says which record is meant.

    Args:
        kind: Of the record.
        required: Exactly one must be meant; otherwise it only filters a list.
        with_revision: It may end in `:REVISION`.
    """

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if not value:
            return
        revision = None
        if kind in WITH_ID:
            revision = Identifier.parse(value).revision or None
            if revision and not with_revision:
                raise click.ClickException(f"Revision tag not expected here: {value}")
            try:
                filters = filter_for(kind, value)
            except ValueError as err:
                raise click.ClickException(str(err)) from err
        else:
            filters = filter_for(kind, value)
        keep("ident_filter", (kind, filters, required, revision))

    return click.argument(kind, required=required, expose_value=False, callback=remember)
