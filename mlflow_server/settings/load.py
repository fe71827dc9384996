"""Collect settings from every source, rank them, check them.

First wins: option, platform flag, operator's environment, secrets folder, project file, default
(`docs/design/settings.md` says why). Nothing else in this package reads `os.environ`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlflow_server.errors import ExitCode, SettingsError
from mlflow_server.platform import PlatformFlags
from mlflow_server.settings.kinds import split_words
from mlflow_server.settings.model import DEFAULT_SECRETS_DIR, Setting, Settings, iter_definitions
from mlflow_server.settings.secrets import read_secrets, secret_values
from mlflow_server.units import render_duration

PROJECT_FILE = "anaconda-project.yml"


class Source(StrEnum):
    """Where a value came from, strongest first."""

    OPTION = "option"
    PLATFORM = "platform flag"
    ENVIRONMENT = "environment"
    SECRET = "secret"  # noqa: S105 - the name of a place
    PROJECT = "anaconda-project.yml"
    DEFAULT = "default"


@dataclass(frozen=True)
class LoadedSettings:
    """Checked settings and what was learnt while reading them.

    Args:
        settings: The values.
        sources: Source of each value by setting name.
        credentials: Environment for the libraries underneath (AWS_*, PG*, ...) that came from the
            secrets folder; the operator's environment is stronger and left out.
        secret_values: Every text that must never be printed.
        platform: The flags that the platform passed.
    """

    settings: Settings
    sources: Mapping[str, Source]
    credentials: Mapping[str, str]
    secret_values: frozenset[str]
    platform: PlatformFlags

    def source_of(self, name: str) -> Source:
        """Where the value of the setting `name` came from."""
        return self.sources[name]

    def __repr__(self) -> str:
        return "LoadedSettings(...)"


@dataclass
class _Candidates:
    """Raw texts found for each setting name, with their source, before they are checked."""

    found: dict[str, tuple[str, Source]] = field(default_factory=dict)

    def offer(self, name: str, text: str | None, source: Source) -> None:
        text = (text or "").rstrip("\r\n")
        if text and name not in self.found:
            self.found[name] = (text, source)


def load_settings(
    *,
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    platform: PlatformFlags | None = None,
    project_dir: Path | None = None,
) -> LoadedSettings:
    """Collect, rank and check all settings.

    Args:
        options: Setting name to text, for the options that were given on the command line.
        environ: The process environment; by default the real one.
        platform: Flags that the platform passed.
        project_dir: Folder of `anaconda-project.yml`; by default PROJECT_DIR or the current folder.

    Returns:
        The settings with their sources.

    Raises:
        SettingsError: With every problem, one line each; no line holds a secret.
    """
    environ = os.environ if environ is None else environ
    platform = platform or PlatformFlags()
    problems: list[str] = []
    candidates = _Candidates()
    for name, text in (options or {}).items():
        candidates.offer(name, text, Source.OPTION)
    for name, text in _platform_values(platform).items():
        candidates.offer(name, text, Source.PLATFORM)

    declared = _declared_variables(project_dir or Path(environ.get("PROJECT_DIR") or "."), problems)
    names = {definition.setting.name for definition in iter_definitions()}
    for name in names:
        text = environ.get(name, "")
        if text != declared.get(name):
            candidates.offer(name, text, Source.ENVIRONMENT)

    secrets_dir, extra = _secrets_place(candidates, environ, declared)
    secrets = read_secrets(secrets_dir, names, extra, problems)
    credentials: dict[str, str] = {}
    for name, text in secrets.items():
        if name in names:
            candidates.offer(name, text, Source.SECRET)
        elif not environ.get(name):
            credentials[name] = text
    for name in names:
        candidates.offer(name, declared.get(name), Source.PROJECT)
    if platform.present:
        candidates.offer("MLFLOW_HOST", "0.0.0.0", Source.DEFAULT)  # noqa: S104 - AE5 needs it
        candidates.offer("MLFLOW_PORT", "8086", Source.DEFAULT)

    settings = _check(candidates, problems)
    if settings is None or problems:
        only_options = all(problem.startswith("--") for problem in problems)
        raise SettingsError(
            problems,
            hint="mlflow-server settings lists every setting with its meaning and source",
            exit_code=ExitCode.USAGE if only_options else ExitCode.SETTINGS,
        )
    sources = {
        name: candidates.found[name][1] if name in candidates.found else Source.DEFAULT
        for name in names
    }
    hidden = secret_values(settings, environ, secrets)
    return LoadedSettings(settings, sources, credentials, hidden, platform)


def _platform_values(platform: PlatformFlags) -> dict[str, str]:
    values = {
        "MLFLOW_HOST": platform.address,
        "MLFLOW_PORT": platform.port,
        "MLFLOW_STATIC_PREFIX": platform.url_prefix,
    }
    return {name: text for name, text in values.items() if text}


def _declared_variables(folder: Path, problems: list[str]) -> dict[str, str]:
    """The defaults under `variables:` in the project file, as text, by name."""
    import yaml

    path = folder / PROJECT_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        problems.append(f"{path}: cannot be read: {type(err).__name__}")
        return {}
    variables = document.get("variables") if isinstance(document, dict) else None
    if not isinstance(variables, dict):
        return {}
    declared = {}
    for name, entry in variables.items():
        default = entry.get("default") if isinstance(entry, dict) else entry
        if isinstance(default, str | int | float) and str(default):
            declared[str(name)] = str(default)
    return declared


def _secrets_place(
    candidates: _Candidates, environ: Mapping[str, str], declared: Mapping[str, str]
) -> tuple[Path, frozenset[str]]:
    def text_of(name: str) -> str:
        found = candidates.found.get(name)
        return found[0] if found else environ.get(name) or declared.get(name, "")

    directory = text_of("TRACKING_SERVER_SECRETS_DIR")
    extra = frozenset(split_words(text_of("TRACKING_SERVER_EXTRA_SECRETS")))
    return Path(directory) if directory else DEFAULT_SECRETS_DIR, extra


def _check(candidates: _Candidates, problems: list[str]) -> Settings | None:
    groups: dict[str, dict[str, str]] = {}
    by_place: dict[tuple[str, str], Setting] = {}
    defaults: dict[str, Any] = {}
    for definition in iter_definitions():
        by_place[definition.group, definition.field] = definition.setting
        defaults[definition.setting.name] = definition.default
        found = candidates.found.get(definition.setting.name)
        if found is not None:
            text = found[0]
            fault = _unreadable(text)
            if fault:
                problems.append(f"{_title(definition.setting, found[1])}: {fault}")
                continue
            groups.setdefault(definition.group, {})[definition.field] = text
    try:
        return Settings.model_validate(groups)
    except ValidationError as failure:
        for error in failure.errors(include_input=False, include_url=False, include_context=True):
            setting = by_place[str(error["loc"][0]), str(error["loc"][1])]
            source = candidates.found[setting.name][1]
            is_duration = isinstance(defaults[setting.name], float)
            render = render_duration if is_duration else str
            line = f"{_title(setting, source)}: {_explain(dict(error), render)}"
            if line not in problems:
                problems.append(line)
    return None


def _unreadable(text: str) -> str | None:
    """Why a text cannot be a value at all; undecodable bytes come as lone surrogates."""
    if "\0" in text:
        return "holds a NUL byte"
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return "is not UTF-8 text"
    return None


def _title(setting: Setting, source: Source) -> str:
    name = setting.option if source is Source.OPTION and setting.option else setting.name
    return name if source is Source.OPTION else f"{name} ({source.value})"


def _explain(error: dict[str, Any], render: Callable[[Any], str]) -> str:
    """A pydantic error in the words of an operator, without the value; bounds by `render`."""
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"must be at least {render(context['ge'])}"
        case "less_than_equal":
            return f"must be at most {render(context['le'])}"
        case "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "bool_parsing":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}"
        case _:
            return str(error["msg"])
