"""Every setting, where it may come from, and the frozen `Settings` a command works with.

Reads the environment, one folder of secrets and the `variables:` of `anaconda-project.yml`; nothing
else in this package reads `os.environ`.

A setting is one annotated field below. First wins: option, platform flag, operator's environment,
secrets folder, project file, default (`docs/design/settings.md` says why).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from mlflow_server.errors import ExitCode, SettingsError
from mlflow_server.platform import PlatformFlags
from mlflow_server.units import parse_duration, render_duration
from mlflow_server.uris import (
    MASK,
    credentials_in,
    mask_uri,
    parse_artifacts_destination,
    parse_store_uri,
)

DEFAULT_SECRETS_DIR = Path("/var/run/secrets/user_credentials")
PROJECT_FILE = "anaconda-project.yml"
_MAX_SECRET_BYTES = 1024 * 1024


class Source(StrEnum):
    """Where a value came from, strongest first."""

    OPTION = "option"
    PLATFORM = "platform flag"
    ENVIRONMENT = "environment"
    SECRET = "secret"  # noqa: S105 - the name of a place
    PROJECT = "anaconda-project.yml"
    DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """What makes a field a setting.

    Args:
        name: Environment variable, secret or project variable that holds it.
        option: Command-line option, when there is one.
        meaning: One sentence for `settings` and `docs/settings.md`.
        shown_default: How a default is written in the documentation, when not as its value.
    """

    name: str
    option: str | None
    meaning: str
    shown_default: str | None = None


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _split_words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _words(value: object) -> object:
    return _split_words(value) if isinstance(value, str) else value


def _store_uri(value: SecretStr) -> SecretStr:
    parse_store_uri(value.get_secret_value())
    return value


def _destination(value: str) -> str:
    parse_artifacts_destination(value, plugin_schemes=installed_artifact_schemes())
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("is not an http(s) URL; write https://HOST[:PORT][/PREFIX]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold credentials, a query or a fragment")
    return value.rstrip("/")


def _url_prefix(value: str) -> str:
    prefix = "/" + value.strip("/")
    if prefix == "/":
        return ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix) or "/.." in prefix or "/." in prefix:
        raise ValueError("is not a plain path; write /NAME or /NAME/NAME")
    return prefix


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    import ipaddress

    for word in value:
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(
                f"holds {word[:40]!r}, which is no address or network; write 10.0.0.0/8"
            ) from None
    return value


Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1, le=1_000)]
Duration = Annotated[float, BeforeValidator(_duration)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
StoreUriText = Annotated[SecretStr, AfterValidator(_store_uri)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class StoreSettings(_Group):
    """The backend store."""

    backend_store_uri: Annotated[
        StoreUriText,
        Setting(
            "MLFLOW_BACKEND_STORE_URI",
            "--backend-store-uri",
            "Database of experiments, runs, models and traces.",
        ),
    ] = SecretStr("sqlite:///data/mlflow/standalone/store/mydb.sqlite")
    read_replica_uri: Annotated[
        StoreUriText | None,
        Setting(
            "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
            "--read-replica-backend-store-uri",
            "Read-only copy of that database, for searches.",
        ),
    ] = None
    registry_store_uri: Annotated[
        StoreUriText | None,
        Setting(
            "MLFLOW_REGISTRY_STORE_URI",
            "--registry-store-uri",
            "Database of registered models, when it is another one.",
            "the backend store",
        ),
    ] = None
    pool_size: Annotated[
        Count,
        Setting(
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE",
            None,
            "Database connections that each pool of each worker keeps.",
        ),
    ] = 5
    max_overflow: Annotated[
        int,
        Field(ge=1, le=1_000),
        Setting(
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW",
            None,
            "Further connections that a pool may open under load.",
        ),
    ] = 5
    pool_recycle: Annotated[
        int,
        Field(ge=1),
        Setting(
            "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE",
            None,
            "Seconds after which a pooled connection is replaced.",
        ),
    ] = 1_800


class ArtifactSettings(_Group):
    """Artifacts."""

    destination: Annotated[
        str,
        AfterValidator(_destination),
        Setting(
            "MLFLOW_ARTIFACTS_DESTINATION",
            "--artifacts-destination",
            "Folder or object store that the server keeps artifacts in.",
        ),
    ] = "data/mlflow/standalone/artifacts"
    default_artifact_root: Annotated[
        str,
        Setting(
            "MLFLOW_DEFAULT_ARTIFACT_ROOT",
            "--default-artifact-root",
            "Where clients put the artifacts of new experiments.",
        ),
    ] = "mlflow-artifacts:/"


class ServerSettings(_Group):
    """The server process."""

    host: Annotated[
        str,
        Setting(
            "MLFLOW_HOST", "--host", "Address to listen on.", "127.0.0.1; 0.0.0.0 on a platform"
        ),
    ] = "127.0.0.1"
    port: Annotated[
        Port, Setting("MLFLOW_PORT", "--port", "Port to listen on.", "5000; 8086 on a platform")
    ] = 5_000
    workers: Annotated[
        Annotated[int, Field(ge=1, le=64)] | None,
        Setting("MLFLOW_WORKERS", "--workers", "Worker processes.", "usable cores, 2 to 4"),
    ] = None
    threads: Annotated[
        Annotated[int, Field(ge=1, le=200)] | None,
        Setting(
            "TRACKING_SERVER_THREADS",
            None,
            "Requests that one worker handles at the same time.",
            "pool size + overflow",
        ),
    ] = None
    public_url: Annotated[
        Annotated[str, AfterValidator(_http_url)] | None,
        Setting(
            "TRACKING_SERVER_PUBLIC_URL",
            "--public-url",
            "Address that users type; gives allowed host, origin and path prefix.",
        ),
    ] = None
    url_prefix: Annotated[
        Annotated[str, AfterValidator(_url_prefix)] | None,
        Setting(
            "MLFLOW_STATIC_PREFIX",
            "--static-prefix",
            "Path prefix that a proxy passes on; UI, API and artifacts answer below it.",
            "that of the public URL",
        ),
    ] = None
    allowed_hosts: Annotated[
        Words,
        Setting(
            "MLFLOW_SERVER_ALLOWED_HOSTS",
            "--allowed-hosts",
            "Further host names that requests may use, besides the public, loopback and private.",
        ),
    ] = ()
    cors_allowed_origins: Annotated[
        Words,
        Setting(
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
            "--cors-allowed-origins",
            "Further web origins that may call the API, besides the public ones.",
        ),
    ] = ()
    frame_ancestors: Annotated[
        Words,
        Setting(
            "TRACKING_SERVER_FRAME_ANCESTORS",
            None,
            "Hosts whose pages may show the UI in a frame, besides the server itself.",
        ),
    ] = ()
    trusted_proxies: Annotated[
        Annotated[Words, AfterValidator(_networks)] | None,
        Setting(
            "TRACKING_SERVER_TRUSTED_PROXIES",
            "--trusted-proxies",
            "Addresses or networks whose X-Forwarded-* headers are believed.",
            "127.0.0.1; private networks when the platform says so",
        ),
    ] = None
    graceful_timeout: Annotated[
        Annotated[Duration, Field(ge=0, le=3_600)],
        Setting(
            "TRACKING_SERVER_GRACEFUL_TIMEOUT",
            "--graceful-timeout",
            "How long requests in flight may go on after SIGTERM.",
            "25s",
        ),
    ] = 25.0
    keep_alive: Annotated[
        Annotated[Duration, Field(ge=1, le=3_600)],
        Setting(
            "TRACKING_SERVER_KEEP_ALIVE",
            None,
            "How long an idle connection stays open; more than a proxy in front keeps it.",
            "75s",
        ),
    ] = 75.0
    metrics: Annotated[
        bool,
        Setting("TRACKING_SERVER_METRICS", "--metrics", "Answer /metrics for Prometheus."),
    ] = False
    job_execution: Annotated[
        bool,
        Setting(
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
            None,
            "Run MLflow's background jobs (GenAI scorers, trace archival): 8 more processes.",
        ),
    ] = False


class ClientSettings(_Group):
    """How the commands reach a running server."""

    tracking_uri: Annotated[
        str | None,
        Setting("MLFLOW_TRACKING_URI", "--tracking-uri", "Public address of the tracking server."),
    ] = None
    registry_uri: Annotated[
        str | None,
        Setting("MLFLOW_REGISTRY_URI", None, "Public address of the model registry."),
    ] = None
    tracking_token: Annotated[
        SecretStr | None,
        Setting("MLFLOW_TRACKING_TOKEN", None, "Bearer token for the tracking server."),
    ] = None


class GcSettings(_Group):
    """Garbage collection."""

    ttl: Annotated[
        Duration,
        Setting(
            "MLFLOW_TRACKING_GC_TTL",
            "--older-than",
            "How long deleted things can be restored before they are purged.",
            "30d0h0m0s",
        ),
    ] = 30 * 86_400.0


class LogSettings(_Group):
    """Logs."""

    format: Annotated[
        Literal["text", "json"],
        Setting("TRACKING_SERVER_LOG_FORMAT", "--log-format", "Log lines for people or machines."),
    ] = "text"
    access_log: Annotated[
        bool,
        Setting("TRACKING_SERVER_ACCESS_LOG", "--access-log", "One log line for each request."),
    ] = False


class SecretsSettings(_Group):
    """The secrets folder. These two are not read from it."""

    directory: Annotated[
        Path,
        Setting(
            "TRACKING_SERVER_SECRETS_DIR", None, "Folder with one file per secret, as AE5 mounts."
        ),
    ] = DEFAULT_SECRETS_DIR
    extra: Annotated[
        Words,
        Setting(
            "TRACKING_SERVER_EXTRA_SECRETS", None, "Names of further secrets to read from there."
        ),
    ] = ()


class Settings(_Group):
    """All settings of this bundle, checked."""

    store: StoreSettings = StoreSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    server: ServerSettings = ServerSettings()
    client: ClientSettings = ClientSettings()
    gc: GcSettings = GcSettings()
    log: LogSettings = LogSettings()
    secrets: SecretsSettings = SecretsSettings()


@dataclass(frozen=True)
class Definition:
    """A setting together with its place in `Settings`.

    Args:
        group: Field of `Settings`.
        field: Field of that group.
        setting: Name, option, meaning.
        default: Value when nobody sets it.
        is_secret: True when its value is never shown.
    """

    group: str
    field: str
    setting: Setting
    default: Any
    is_secret: bool

    @property
    def default_text(self) -> str:
        """The default as `docs/settings.md` shows it; empty when there is none."""
        return self.setting.shown_default or render_value(self.default)


def iter_definitions() -> Iterator[Definition]:
    """Every setting, in the order of the documentation."""
    for group, group_field in Settings.model_fields.items():
        model = group_field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"Settings.{group} is no group of settings")
        for name, info in model.model_fields.items():
            setting = next(entry for entry in info.metadata if isinstance(entry, Setting))
            is_secret = SecretStr in _types_in(info.annotation)
            yield Definition(group, name, setting, info.default, is_secret)


def _types_in(annotation: Any) -> set[Any]:
    found = {annotation}
    for argument in get_args(annotation):
        found |= _types_in(argument)
    return found


def render_value(value: Any) -> str:
    """A value as an operator would write it; secrets and credentials are masked."""
    match value:
        case None | ():
            return ""
        case SecretStr():
            text = value.get_secret_value()
            return mask_uri(text) if "://" in text else MASK
        case bool():
            return "true" if value else "false"
        case float():
            return render_duration(value)
        case tuple():
            return ",".join(mask_uri(str(entry)) for entry in value)
        case _:
            return mask_uri(str(value))


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
    secrets = _read_secrets(secrets_dir, names, extra, problems)
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
    secret_values = _secret_values(settings, environ, secrets, names)
    return LoadedSettings(settings, sources, credentials, secret_values, platform)


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
    extra = frozenset(_split_words(text_of("TRACKING_SERVER_EXTRA_SECRETS")))
    return Path(directory) if directory else DEFAULT_SECRETS_DIR, extra


# Beside our own settings: what MLflow and the client libraries below it read from the environment.
_SECRET_NAMES = re.compile(
    r"^(MLFLOW_|TRACKING_SERVER_|AWS_|AZURE_|GOOGLE_|PG)[A-Z0-9_]+$"
    r"|^(REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR)$"
    r"|^(HTTPS?_PROXY|ALL_PROXY|NO_PROXY|https?_proxy|all_proxy|no_proxy)$"
)
_NEVER_FROM_SECRETS = frozenset({"TRACKING_SERVER_SECRETS_DIR", "TRACKING_SERVER_EXTRA_SECRETS"})
_NOT_CREDENTIALS = re.compile(
    r"^(AWS_(DEFAULT_)?REGION|AWS_PROFILE|GOOGLE_CLOUD_PROJECT|PG(HOST|PORT|USER|DATABASE|SSLMODE))$"
    r"|(_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR|NO_PROXY|no_proxy|_ENDPOINT_URL|_FILE|_URL)$"
)


def _read_secrets(
    folder: Path, names: set[str], extra: frozenset[str], problems: list[str]
) -> dict[str, str]:
    """The secrets that concern us, name to text, without a trailing newline; empty ones left out."""
    wanted = names - _NEVER_FROM_SECRETS
    secrets: dict[str, str] = {}
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as err:
        problems.append(f"{folder}: cannot read the secrets folder: {err.strerror}")
        return {}
    for path in entries:
        name = path.name
        if name in _NEVER_FROM_SECRETS or name.startswith("."):
            continue
        if not (name in wanted or name in extra or _SECRET_NAMES.match(name)):
            continue
        text = _read_secret(path, problems)
        if text:
            secrets[name] = text
    return secrets


def _read_secret(path: Path, problems: list[str]) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as err:
        problems.append(f"{path.name} (secret): cannot read {path}: {err.strerror}")
        return None
    if len(content) > _MAX_SECRET_BYTES:
        problems.append(f"{path.name} (secret): {path} is longer than 1 MiB; write the value alone")
        return None
    if b"\0" in content:
        problems.append(f"{path.name} (secret): {path} holds a NUL byte; write plain text")
        return None
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        problems.append(f"{path.name} (secret): {path} is not UTF-8 text; write plain text")
        return None


def _check(candidates: _Candidates, problems: list[str]) -> Settings | None:
    groups: dict[str, dict[str, str]] = {}
    by_place: dict[tuple[str, str], Setting] = {}
    for definition in iter_definitions():
        by_place[definition.group, definition.field] = definition.setting
        found = candidates.found.get(definition.setting.name)
        if found is not None:
            text = found[0].rstrip("\r\n")
            if "\0" in text:
                problems.append(f"{_title(definition.setting, found[1])}: holds a NUL byte")
                continue
            groups.setdefault(definition.group, {})[definition.field] = text
    try:
        return Settings.model_validate(groups)
    except ValidationError as failure:
        for error in failure.errors(include_input=False, include_url=False, include_context=True):
            setting = by_place[str(error["loc"][0]), str(error["loc"][1])]
            source = candidates.found[setting.name][1]
            line = f"{_title(setting, source)}: {_explain(dict(error))}"
            if line not in problems:
                problems.append(line)
    return None


def _title(setting: Setting, source: Source) -> str:
    name = setting.option if source is Source.OPTION and setting.option else setting.name
    return name if source is Source.OPTION else f"{name} ({source.value})"


def _explain(error: dict[str, Any]) -> str:
    """A pydantic error in the words of an operator, without the value."""
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "bool_parsing":
            return "must be true or false"
        case "literal_error":
            return f"must be {context['expected']}"
        case _:
            return str(error["msg"])


def _secret_values(
    settings: Settings, environ: Mapping[str, str], secrets: Mapping[str, str], names: set[str]
) -> frozenset[str]:
    values: set[str] = set()
    for definition in iter_definitions():
        value = getattr(getattr(settings, definition.group), definition.field)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            values |= credentials_in(text) if "://" in text else {text}
        elif isinstance(value, str):
            values |= credentials_in(value)
    outside = {
        name: text
        for name, text in environ.items()
        if name not in names and (_SECRET_NAMES.match(name) or name in settings.secrets.extra)
    }
    for name, text in {**outside, **secrets}.items():
        if "://" in text:
            values |= credentials_in(text)
        elif name not in names and not _NOT_CREDENTIALS.search(name) and len(text) >= 6:
            values.add(text)
    return frozenset(value for value in values if value)


def installed_artifact_schemes() -> frozenset[str]:
    """URI schemes for which an MLflow plugin is installed (entry points, nothing is imported)."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group="mlflow.artifact_repository"))
