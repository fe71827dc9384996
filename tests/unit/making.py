"""Short ways to the objects that unit tests start from: loaded settings, a launch plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_server.platform import PlatformFlags
from mlflow_server.server.plan import Facts, LaunchPlan, make_plan
from mlflow_server.settings.load import LoadedSettings, load_settings

FACTS = Facts(usable_cores=2)


def write_secrets(folder: Path, secrets: Mapping[str, str | bytes]) -> Path:
    """A folder with one file per secret; text is written as UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in secrets.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_project(folder: Path, variables: Mapping[str, str]) -> None:
    """An `anaconda-project.yml` that declares defaults."""
    lines = ["name: test", "variables:"]
    lines += [f"  {name}:\n    default: '{value}'" for name, value in variables.items()]
    (folder / "anaconda-project.yml").write_text("\n".join(lines), "utf-8")


def load(
    folder: Path,
    *,
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    secrets: Mapping[str, str | bytes] | None = None,
    declared: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> LoadedSettings:
    """Settings of a project in `folder`, from exactly these sources.

    Args:
        folder: An empty folder of the test.
        options: Setting name to text, as from the command line.
        environ: The whole environment, but for where the secrets folder is.
        secrets: Files of the secrets folder.
        declared: Defaults in the project file.
        flags: A command line with the platform's flags.
    """
    place = write_secrets(folder / "secrets", secrets or {})
    if declared is not None:
        write_project(folder, declared)
    platform, _ = PlatformFlags.take_from(flags)
    return load_settings(
        options=options,
        environ={"TRACKING_SERVER_SECRETS_DIR": str(place), **(environ or {})},
        platform=platform,
        project_dir=folder,
    )


def plan_for(
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
    facts: Facts = FACTS,
) -> LaunchPlan:
    """The launch plan for an environment and a platform's flags."""
    return make_plan(load(folder, environ=environ, flags=flags), facts)
