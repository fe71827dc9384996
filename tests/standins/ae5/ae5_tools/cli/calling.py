"""From a command to the cluster and back to the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .. import saved
from ..accounts import AEAdminSession
from ..api import AEUserSession
from ..errors import AEException
from ..records import WITH_ID, Identifier, holds
from ..session import AESessionBase
from ..tables import Table, cell, print_csv, print_json, print_text
from .options import keep, said

AESessionBase.tell = staticmethod(lambda text, nl=True: click.echo(text, err=True, nl=nl))


# Kept to the end of the process, which is too late for a session that is not saved to sign out.
_sessions: dict[tuple[str, str, bool], AESessionBase] = {}


def _account(admin: bool) -> tuple[str, str]:
    """Host and user: as told, or those of the last saved session, or as people say."""
    told = said()
    key = "admin_username" if admin else "username"
    host, user = told.get("hostname"), told.get(key)
    if not (host and user):
        found = saved.find(host or None, user or None, admin=admin)
        if found:
            host, user = found[0]
        host = host or click.prompt("Hostname", err=True)
        user = user or click.prompt("Admin username" if admin else "Username", err=True)
        keep("hostname", host)
        keep(key, user)
    return str(host), str(user)


def connect(admin: bool = False) -> AESessionBase:
    """A session; says on stderr whose it is.

    Raises:
        click.ClickException: Host or user is empty.
    """
    told = said()
    host, user = _account(admin)
    if (host, user, admin) in _sessions:
        return _sessions[host, user, admin]
    kind = "admin" if admin else "user"
    click.echo(f"Connecting to {kind} account {user}@{host}.", err=True)
    persist = not told.get("no_saved_logins", False)
    try:
        if admin:
            made: AESessionBase = AEAdminSession(host, user, told.get("admin_password"), persist)
        else:
            password: Any = connect(True) if told.get("impersonate") else told.get("password")
            made = AEUserSession(host, user, password, persist, told.get("k8s_endpoint"))
    except (ValueError, AEException) as err:
        raise click.ClickException(str(err)) from err
    _sessions[host, user, admin] = made
    return made


def sign_out(admin: bool) -> None:
    """End a saved session."""
    session = connect(admin)
    if session.connected:
        session.disconnect()
        click.echo(f"Logged out as {session.username}@{session.hostname}.", err=True)


def call(
    method: str,
    *arguments: Any,
    admin: bool = False,
    confirm: str = "",
    before: str = "",
    after: str = "",
    **settings: Any,
) -> None:
    """Call a method of the session, and print what it returns.

    Args:
        method: Its name.
        arguments: For it; the record that the command line names comes first.
        admin: Of an administrator's session.
        confirm: A question to ask first; without consent nothing happens, which is no failure.
        before: Said on stderr before, without a line end. `{ident}` is what the command line names.
        after: Said on stderr when it is done.
        settings: For the method.

    Raises:
        click.ClickException: The cluster refuses.
    """
    told = said()
    session = connect(admin)
    shown: Any = ""
    if "ident_filter" in told:
        kind, filters, required, revision = told["ident_filter"]
        if not required:
            settings["filter"] = filters + told.pop("filter", ())
        elif method.endswith("_info"):
            more = () if revision is None else (f"revision={revision}",)
            shown = ",".join(filters)
            arguments = (filters + more, *arguments)
        else:
            record = _attempt(session.resolve, kind, filters)  # type: ignore[attr-defined]
            shown = Identifier.of(record) if kind in WITH_ID else ",".join(filters)
            if revision is not None:
                record["_revision"] = revision
            arguments = (record, *arguments)
    confirm, before, after = (
        text.replace("{ident}", str(shown)) for text in (confirm, before, after)
    )
    if confirm and not told.get("yes") and not click.confirm(confirm):
        return
    if before:
        click.echo(before, nl=False, err=True)
    form = {None: "tableif", "text": "text"}.get(told.get("format"), "table")
    try:
        found = getattr(session, method)(*arguments, **{"format": form, **settings})
    except AEException as err:
        if before or after:
            click.echo("", err=True)
        raise click.ClickException(str(err)) from err
    if before or after:
        click.echo(after, err=True)
    output(found)


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except AEException as err:
        raise click.ClickException(str(err)) from err


def output(found: Any) -> None:
    """Print a result in the form that was asked for.

    Raises:
        click.UsageError: A column or field that it does not have.
    """
    if found is None:
        return
    if isinstance(found, list | str):
        if found:
            print(found)
        return
    if not isinstance(found, tuple):
        raise NotImplementedError(f"Not prepared to print an object of type {type(found)}")
    told = said()
    form = told.get("format")
    table = _sorted(found, told.get("sort"))
    table = _filtered(table, told.get("filter", ()))
    table = _chosen(table, told.get("columns"), everything=form in ("json", "csv"))
    header = told.get("header", True)
    if form == "json":
        print_json(table)
    elif form == "csv":
        print_csv(table, header=header)
    else:
        width = 10**9 if told.get("wide") else told.get("width") or 0
        print_text(table, header=header, width=width)


def _sorted(table: Table, told: str | None) -> Table:
    rows, columns = table
    for name in reversed(told.split(",") if told and rows and columns else []):
        plain = name.removeprefix("-")
        if plain not in columns:
            raise click.UsageError(f"Invalid sort field: {plain}")
        place = columns.index(plain)

        def key(row: Any, place: int = place) -> Any:
            return row[place].lower() if isinstance(row[place], str) else row[place]

        rows = sorted(rows, key=key, reverse=name.startswith("-"))
    return rows, columns


def _filtered(table: Table, filters: tuple[str, ...]) -> Table:
    rows, columns = table

    def meets(row: Any, condition: str) -> bool:
        try:
            return holds(condition, columns, lambda name: cell(row[columns.index(name)]))
        except LookupError as err:
            raise click.UsageError(f"Invalid filter field: {err.args[0]}") from err
        except ValueError as err:
            raise click.UsageError(
                f"Invalid filter string: {condition}\n   Required format: <fieldname><op><value>"
            ) from err

    for text in filters:
        for group in text.split(","):
            alternatives = [part.split("&") for part in group.split("|")]
            rows = [
                row
                for row in rows
                if any(all(meets(row, one) for one in part) for part in alternatives)
            ]
    return rows, columns


def _chosen(table: Table, told: str | None, *, everything: bool) -> Table:
    rows, columns = table
    if told:
        wanted = told.split(",")
        if missing := set(wanted) - set(columns):
            names = "\n  - ".join(missing)
            raise click.UsageError(
                f"One or more of the requested columns were not found:\n  - {names}"
            )
    elif everything:
        return table
    else:
        wanted = [name for name in columns if not name.startswith("_")]
    places = [columns.index(name) for name in wanted]
    return [[row[place] for place in places] for row in rows], wanted
