"""`settings`: every setting with its masked value, source and meaning."""

from collections.abc import Mapping
from typing import Any

import click

from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    load,
    make_report,
    pass_context,
)
from mlflow_server.report import Report
from mlflow_server.settings.load import LoadedSettings
from mlflow_server.settings.model import iter_definitions, render_value

EPILOG = """\b
Examples:
  mlflow-server settings
  mlflow-server settings --json
  MLFLOW_PORT=6000 mlflow-server settings

Sources, strongest first: option, platform flag, environment, secret, anaconda-project.yml, default.
Secrets are masked, here and everywhere else."""


@click.command("settings", epilog=EPILOG)
@common_options
@pass_context
def command(context: Context) -> None:
    """Show every setting: value, source, meaning.

    Exit code 78 when one of them is wrong, with all problems at once.
    """
    loaded = load(context)
    data = {
        "settings": [
            _describe(loaded, definition.setting.name) for definition in iter_definitions()
        ],
        "other_secrets": sorted(loaded.credentials),
    }
    finish(context, make_report(context, data=data), _render)


def _describe(loaded: LoadedSettings, name: str) -> dict[str, Any]:
    definition = next(entry for entry in iter_definitions() if entry.setting.name == name)
    value = getattr(getattr(loaded.settings, definition.group), definition.field)
    return {
        "name": name,
        "value": render_value(value),
        "source": loaded.source_of(name).value,
        "option": definition.setting.option,
        "default": definition.default_text,
        "is_secret": definition.is_secret,
        "meaning": definition.setting.meaning,
    }


def _render(context: Context, report: Report) -> None:
    color = context.wants_color()
    entries: list[Mapping[str, Any]] = list(report.data["settings"])
    for entry in entries:
        name = click.style(entry["name"], bold=True)
        value = entry["value"] or f"({entry['default'] or 'not set'})"
        click.echo(f"{name} = {value}  [{entry['source']}]", color=color)
        click.echo(f"    {entry['meaning']}", color=color)
    others = report.data["other_secrets"]
    if others:
        click.echo(f"Also read from the secrets folder: {', '.join(others)}", color=color)
    click.echo(f"{len(entries)} settings", color=color)
