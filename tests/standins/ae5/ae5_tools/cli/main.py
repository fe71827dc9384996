"""The command line: groups, and the commands that do more than name a method."""

from __future__ import annotations

import sys
from typing import Any

import click

from .. import __version__, saved
from . import commands
from .calling import call, output, sign_out
from .options import identifier, with_options, yes

_UNIQUE = click.option("--make-unique", is_flag=True, default=None)
_COMMAND = [click.option("--command"), click.option("--resource-profile")]
_VARIABLE = click.option("--variable", multiple=True)


def _apply(options: list[Any], function: Any) -> Any:
    for option in reversed(options):
        function = option(function)
    return function


@click.group(name="ae5", invoke_without_command=True)
@click.version_option(version=__version__, message="%(prog)s %(version)s")
@with_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Anaconda Enterprise 5, on the command line (a stand-in)."""
    if context.invoked_subcommand is None:
        _prompt()


def _prompt() -> None:
    """Take commands one by one, without a prompt to see; the real one is made for terminals."""
    for line in sys.stdin:
        words = line.split()
        if words:
            cli.main(words, standalone_mode=False, obj={})


def _group(path: str) -> click.Group:
    """The group of that name, made when it is missing."""
    here: click.Group = cli
    for name in path.split():
        found = here.commands.get(name)
        if found is None:
            found = click.group(name=name)(with_options(lambda: None))
            here.add_command(found)
        assert isinstance(found, click.Group)
        here = found
    return here


def _add(path: str, *options: Any) -> Any:
    """Make a function a command, with the options that all have."""

    def make(function: Any) -> click.Command:
        group, _, name = path.rpartition(" ")
        command = click.command(name=name)(_apply(list(options), with_options(function)))
        _group(group).add_command(command)
        return command

    return make


for _each in commands.COMMANDS:
    _group(_each.path.rpartition(" ")[0]).add_command(commands.make(_each))


@_add("login", click.option("--admin", is_flag=True))
def _login(admin: bool) -> None:
    """Sign in, by a call that anybody may make; its result is printed."""
    if admin:
        raise click.ClickException("the stand-in knows no user list")
    call("run_list")


@_add("logout", click.option("--admin", is_flag=True))
def _logout(admin: bool) -> None:
    sign_out(admin)


@_add(
    "call",
    click.argument("path"),
    click.option("--endpoint"),
    click.option("--post", is_flag=True),
)
def _call(path: str, endpoint: str | None, post: bool) -> None:
    """Any call, to the platform or to a deployment."""
    if endpoint and not path.startswith("/"):
        path = f"/{path}"
    call("api", "post" if post else "get", path, subdomain=endpoint or "")


@_add("account list")
def _accounts() -> None:
    columns = ["hostname", "username", "admin", "last used", "session expires"]
    output((saved.list_accounts(), columns))


@_add(
    "project upload",
    click.argument("filename", type=click.Path(exists=True)),
    click.option("--name", default=""),
    click.option("--tag", default=""),
    click.option("--no-wait", is_flag=True),
)
def _upload(filename: str, name: str, tag: str, no_wait: bool) -> None:
    call("project_upload", filename, name=name, tag=tag, wait=not no_wait)


def _download(filename: str) -> None:
    to = f" to {filename}" if filename else ""
    call(
        "project_download",
        filename=filename,
        before=f"Downloading project {{ident}}{to}...",
        after="downloaded.",
    )


def _start(**told: Any) -> None:
    """Deploy; the help of the real program says that it waits, but it does not."""
    kind = "public" if told["public"] else "private"
    name = f" {told['name']}" if told["name"] else ""
    endpoint = f" at endpoint {told['endpoint']}" if told["endpoint"] else ""
    before = f"Starting {kind} deployment{name}{endpoint} for {{ident}}..."
    call("deployment_start", before=before, after="started.", **told)


_project = identifier("project", with_revision=True)
for _path in ("project download", "project revision download"):
    _add(_path, _project, click.option("--filename", default=""))(_download)
for _path in ("project deploy", "deployment start"):
    _add(_path, _project, *commands.START)(_start)


def _create(**told: Any) -> None:
    """A job, or a run of one that is removed afterwards."""
    texts = told.pop("variable")
    if wrong := [text for text in texts if "=" not in text]:
        lines = ["One or more of the --variable options is invalid:", *wrong]
        raise click.UsageError("\n  - ".join(lines))
    pairs = (text.split("=", 1) for text in texts)
    told["variables"] = {name.rstrip(): value.lstrip() for name, value in pairs} or None
    name = f" {told['name']}" if told["name"] else ""
    before = f"Creating job{name} for {{ident}}..."
    call("job_create", before=before, after="created.", **told)


_add(
    "project schedule",
    _project,
    click.argument("schedule"),
    click.option("--name"),
    _UNIQUE,
    *_COMMAND,
    _VARIABLE,
)(_create)


@_add("project run", _project, click.option("--name"), _UNIQUE, *_COMMAND, _VARIABLE)
def _run(**told: Any) -> None:
    """Run once; the exit status does not say how the run ended."""
    _create(run=True, wait=True, show_run=True, cleanup=True, **told)


_add(
    "job create",
    _project,
    click.option("--name"),
    _UNIQUE,
    *_COMMAND,
    click.option("--schedule"),
    _VARIABLE,
    click.option("--run/--no-run", default=None),
    click.option("--wait", is_flag=True),
    click.option("--show-run", is_flag=True),
    click.option("--cleanup", is_flag=True),
)(_create)


@_add(
    "job patch",
    identifier("job"),
    *(click.option(f"--{name}") for name in ("name", "command", "schedule", "resource-profile")),
    _VARIABLE,
    click.option("--clear-variables", is_flag=True),
)
def _patch_job(variable: tuple[str, ...], clear_variables: bool, **told: Any) -> None:
    """Broken, as the real one is: variables are forgotten, anything else is a traceback."""
    call("job_patch", **told)


@_add("secret add", click.argument("key"), click.argument("value"), yes)
def _add_secret(key: str, value: str) -> None:
    call("secret_add", key=key, value=value, before=f"Adding secret {key}...", after="added.")


@_add("secret delete", click.argument("key"), yes)
def _delete_secret(key: str) -> None:
    call(
        "secret_delete",
        key=key,
        confirm=f"Delete secret {key}",
        before=f"Deleting secret {key}...",
        after="deleted.",
    )


@_add("deployment collaborator list", click.argument("deployment"))
def _list_collaborators(deployment: str) -> None:
    call("deployment_collaborator_list", deployment)


@_add("deployment collaborator info", click.argument("deployment"), click.argument("userid"))
def _show_collaborator(deployment: str, userid: str) -> None:
    call("deployment_collaborator_info", deployment, userid)


@_add(
    "deployment collaborator add",
    click.argument("deployment"),
    click.argument("userid", nargs=-1),
    click.option("--group", is_flag=True),
)
def _add_collaborator(deployment: str, userid: tuple[str, ...], group: bool) -> None:
    call("deployment_collaborator_add", deployment, userid, group)


@_add(
    "deployment collaborator remove",
    click.argument("deployment"),
    click.argument("userid", nargs=-1),
)
def _remove_collaborator(deployment: str, userid: tuple[str, ...]) -> None:
    call("deployment_collaborator_remove", deployment, userid)


def main() -> None:
    """Run the command line of this process."""
    cli(obj={})
