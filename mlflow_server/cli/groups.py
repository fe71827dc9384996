"""Groups of commands: the report is told which one runs, and near misses are named."""

import difflib

import click

from mlflow_server.cli.shared import Context


class Group(click.Group):
    """A group whose commands know their whole name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        name = args[0]
        if name not in self.list_commands(ctx):
            # Half of the letters: one of two may be wrong.
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        context = ctx.ensure_object(Context)
        context.command = f"{context.command} {name}".lstrip()
        return super().resolve_command(ctx, args)
