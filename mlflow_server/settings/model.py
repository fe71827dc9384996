"""The settings themselves: one annotated field each, grouped by room. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mlflow_server.settings.kinds import (
    AsciiWords,
    Count,
    Destination,
    Duration,
    HttpUrl,
    Networks,
    Port,
    StoreUriText,
    UrlPrefix,
    Words,
)
from mlflow_server.units import render_duration
from mlflow_server.uris import MASK, Dialect, StoreUri, mask_uri, parse_store_uri

DEFAULT_SECRETS_DIR = Path("/var/run/secrets/user_credentials")


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

    @property
    def backend(self) -> StoreUri:
        """The database of experiments, runs, models and traces."""
        return parse_store_uri(self.backend_store_uri.get_secret_value())

    @property
    def registry(self) -> StoreUri | None:
        """The database of registered models, when it is another one."""
        registry = _other_store(self.registry_store_uri, "MLFLOW_REGISTRY_STORE_URI")
        is_same = registry is not None and registry.text == self.backend.text
        return None if is_same else registry

    @property
    def read_replica(self) -> StoreUri | None:
        """The read-only copy, when there is one."""
        return _other_store(self.read_replica_uri, "MLFLOW_READ_REPLICA_BACKEND_STORE_URI")


def _other_store(uri: SecretStr | None, setting: str) -> StoreUri | None:
    return parse_store_uri(uri.get_secret_value(), setting) if uri is not None else None


class ArtifactSettings(_Group):
    """Artifacts."""

    destination: Annotated[
        Destination,
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
        HttpUrl | None,
        Setting(
            "TRACKING_SERVER_PUBLIC_URL",
            "--public-url",
            "Address that users type; gives allowed host, origin and path prefix.",
        ),
    ] = None
    url_prefix: Annotated[
        UrlPrefix | None,
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
        AsciiWords,
        Setting(
            "TRACKING_SERVER_FRAME_ANCESTORS",
            None,
            "Hosts whose pages may show the UI in a frame, besides the server itself.",
        ),
    ] = ()
    trusted_proxies: Annotated[
        Networks | None,
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


class UpgradeSettings(_Group):
    """Upgrades of the store's schema."""

    on_start: Annotated[
        bool,
        Setting(
            "TRACKING_SERVER_UPGRADE_ON_START",
            "--upgrade-on-start",
            "Whether serve upgrades an old store, after a backup, instead of refusing it.",
        ),
    ] = False


class BackupSettings(_Group):
    """Backups."""

    destination: Annotated[
        Destination | None,
        Setting(
            "TRACKING_SERVER_BACKUPS",
            "--to",
            "Folder or object store that backups are in.",
        ),
    ] = None


class MigrationSettings(_Group):
    """Moving the store somewhere else."""

    to_backend_store_uri: Annotated[
        StoreUriText | None,
        Setting(
            "TRACKING_SERVER_TO_BACKEND_STORE_URI",
            "--to-backend-store-uri",
            "Database that migrate moves the store to; an empty one.",
        ),
    ] = None
    to_artifacts_destination: Annotated[
        Destination | None,
        Setting(
            "TRACKING_SERVER_TO_ARTIFACTS_DESTINATION",
            "--to-artifacts-destination",
            "Where migrate copies artifacts to; without it they stay where they are.",
        ),
    ] = None

    @property
    def target(self) -> StoreUri | None:
        """The database to move to."""
        return _other_store(self.to_backend_store_uri, "TRACKING_SERVER_TO_BACKEND_STORE_URI")


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
    upgrade: UpgradeSettings = UpgradeSettings()
    backup: BackupSettings = BackupSettings()
    migration: MigrationSettings = MigrationSettings()
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


def _render_secret(text: str) -> str:
    """A store URI without its password; of any other secret nobody knows which part is secret."""
    scheme, separator, _ = text.partition("://")
    return mask_uri(text) if separator and scheme.partition("+")[0] in set(Dialect) else MASK


def render_value(value: Any) -> str:
    """A value as an operator would write it; secrets and credentials are masked."""
    match value:
        case None | ():
            return ""
        case SecretStr():
            return _render_secret(value.get_secret_value())
        case bool():
            return "true" if value else "false"
        case float():
            return render_duration(value)
        case tuple():
            return ",".join(mask_uri(str(entry)) for entry in value)
        case _:
            return mask_uri(str(value))
