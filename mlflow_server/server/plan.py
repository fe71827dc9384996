"""From settings and facts to everything a launch needs. Pure."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mlflow_server.settings.load import LoadedSettings, Source
from mlflow_server.settings.model import ServerSettings
from mlflow_server.uris import (
    ArtifactScheme,
    ArtifactUri,
    StoreUri,
    mask_uri,
    parse_artifacts_destination,
)

# What MLflow 3.17.2 lets in by itself (server/security_utils.py get_default_allowed_hosts).
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104
PRIVATE_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "127.0.0.0/8",
    "::1/128",
)
_ALL_ADDRESSES = frozenset({"0.0.0.0", "::", "[::]", ""})  # noqa: S104
# Tracking and registry share one pool per URI in each worker (app.py); /readyz has a connection.
_READINESS_CONNECTIONS = 1
_DEFAULT_ANY_PORT = ":*"


@dataclass(frozen=True)
class Facts:
    """What the plan depends on besides settings.

    Args:
        usable_cores: From `host.usable_cores`.
        plugin_schemes: Artifact schemes that MLflow plugins serve.
        project_dir: The platform's project folder, when there is one: it is lost at restart.
        store_on_network: The SQLite file lies on a network file system.
        artifacts_on_network: The local destination lies on a network file system.
    """

    usable_cores: int
    plugin_schemes: frozenset[str] = frozenset()
    project_dir: Path | None = None
    store_on_network: bool = False
    artifacts_on_network: bool = False


@dataclass(frozen=True)
class LaunchPlan:
    """Everything a launch needs, decided.

    Args:
        host: Address to bind.
        port: TCP port to bind.
        workers: Worker processes.
        threads: Requests a worker handles at a time.
        store: The backend store.
        registry: The registry's store when it is another one.
        read_replica: The replica for reading, when there is one.
        destination: Where artifacts go.
        default_artifact_root: Where new experiments put theirs.
        allowed_names: Host names that requests may carry, lower case, without port. May hold
            `fnmatch` patterns, and `*` alone when the operator said so.
        allowed_origins: Web origins that may call the API.
        frame_ancestors: Sources for `frame-ancestors` besides the server itself.
        url_prefix: Path prefix without trailing slash; empty for none.
        trusted_proxies: Addresses and networks whose X-Forwarded-* count.
        graceful_timeout_s: For requests in flight after SIGTERM.
        keep_alive_s: For idle connections.
        wal: Switch a SQLite store to WAL.
        pool_size: Connections per pool.
        max_overflow: Further connections per pool.
        pool_recycle_s: Age at which a connection is replaced.
        metrics: Answer /metrics.
        access_log: One line a request.
        job_execution: Start MLflow's job runner.
        warnings: What the operator should know, one sentence each.
    """

    host: str
    port: int
    workers: int
    threads: int
    store: StoreUri
    registry: StoreUri | None
    read_replica: StoreUri | None
    destination: ArtifactUri
    default_artifact_root: str
    allowed_names: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    frame_ancestors: tuple[str, ...]
    url_prefix: str
    trusted_proxies: tuple[str, ...]
    graceful_timeout_s: float
    keep_alive_s: float
    wal: bool
    pool_size: int
    max_overflow: int
    pool_recycle_s: int
    metrics: bool
    access_log: bool
    job_execution: bool
    warnings: tuple[str, ...] = ()

    @property
    def stores(self) -> tuple[StoreUri, ...]:
        """Every database the server opens, the backend store first, each once."""
        found: dict[str, StoreUri] = {}
        for uri in (self.store, self.registry, self.read_replica):
            if uri is not None:
                found.setdefault(uri.text, uri)
        return tuple(found.values())

    @property
    def max_connections(self) -> int:
        """Connections that all workers together may open to the backend store's database."""
        per_worker = self.pool_size + self.max_overflow + _READINESS_CONNECTIONS
        return self.workers * per_worker


def make_plan(loaded: LoadedSettings, facts: Facts) -> LaunchPlan:
    """Decide a launch.

    Args:
        loaded: Checked settings with the platform's flags.
        facts: What was found out about the machine.

    Returns:
        The plan; `warnings` holds what is allowed but unwise.
    """
    settings = loaded.settings
    server, store = settings.server, settings.store.backend
    destination = parse_artifacts_destination(
        settings.artifacts.destination, plugin_schemes=facts.plugin_schemes
    )
    hosts, origins = _public_names(loaded)
    threads = server.threads or settings.store.pool_size + settings.store.max_overflow
    return LaunchPlan(
        host=server.host.strip("[]"),
        port=server.port,
        workers=server.workers or min(4, max(2, facts.usable_cores)),
        threads=threads,
        store=store,
        registry=settings.store.registry,
        read_replica=settings.store.read_replica,
        destination=destination,
        default_artifact_root=settings.artifacts.default_artifact_root,
        allowed_names=hosts,
        allowed_origins=origins,
        frame_ancestors=_frame_ancestors(loaded),
        url_prefix=_url_prefix(server),
        trusted_proxies=_trusted_proxies(loaded),
        graceful_timeout_s=server.graceful_timeout,
        keep_alive_s=server.keep_alive,
        wal=store.is_sqlite and not facts.store_on_network,
        pool_size=settings.store.pool_size,
        max_overflow=settings.store.max_overflow,
        pool_recycle_s=settings.store.pool_recycle,
        metrics=server.metrics,
        access_log=settings.log.access_log,
        job_execution=server.job_execution,
        warnings=tuple(_warnings(loaded, facts, store, destination, hosts)),
    )


def _public_names(loaded: LoadedSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Allowed host names and web origins, from platform, public URL and settings."""
    server = loaded.settings.server
    hosts: list[str] = list(LOOPBACK_HOSTS)
    origins: list[str] = []
    for entry in loaded.platform.hosts:
        if "*" not in entry:
            hosts.append(entry)
            origins += [f"https://{entry}", f"http://{entry}"]
    if server.public_url:
        parts = urlsplit(server.public_url)
        hosts.append(parts.hostname or "")
        origins.append(_origin(parts))
    if server.host not in _ALL_ADDRESSES:
        hosts.append(server.host)
    hosts += server.allowed_hosts
    origins += [origin.rstrip("/") for origin in server.cors_allowed_origins]
    return (
        tuple(dict.fromkeys(name for host in hosts if (name := without_port(host)))),
        tuple(dict.fromkeys(origin.lower() for origin in origins)),
    )


def _origin(parts: SplitResult) -> str:
    """A URL's origin as browsers send it: without the port that its scheme has anyway."""
    default = {"http": 80, "https": 443}.get(parts.scheme)
    netloc = parts.netloc.rpartition(":")[0] if parts.port == default else parts.netloc
    return f"{parts.scheme}://{netloc}"


def without_port(host: str) -> str:
    """A Host header's name in lower case, without its port; IPv6 keeps its brackets.

    An address without brackets, as an operator may write it, gets them.
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    if host.count(":") > 1:
        return f"[{host}]"
    return host.partition(":")[0]


def mlflow_allowed_hosts(names: Iterable[str]) -> str:
    """The names in the form of MLFLOW_SERVER_ALLOWED_HOSTS: each with and without a port.

    MLflow compares the Host header literally, port included, unless an entry holds `*`.
    """
    entries: list[str] = []
    for name in names:
        if name == "*":
            return "*"
        escaped = name.replace("[", "[[]", 1) if name.startswith("[") else name
        entries += [name, escaped + _DEFAULT_ANY_PORT]
    entries += ["127.*", "192.168.*", "10.*", *(f"172.{i}.*" for i in range(16, 32)), "[[]f[cd]*"]
    return ",".join(entries)


def _url_prefix(server: ServerSettings) -> str:
    if server.url_prefix is not None:
        return server.url_prefix
    return urlsplit(server.public_url).path.rstrip("/") if server.public_url else ""


def _frame_ancestors(loaded: LoadedSettings) -> tuple[str, ...]:
    entries = (*loaded.platform.iframe_hosts, *loaded.settings.server.frame_ancestors)
    sources = []
    for entry in entries:
        if ";" in entry or "'" in entry or not entry.isascii():
            continue
        # A bare host matches only the page's own scheme; behind a platform both occur.
        sources += [entry] if "://" in entry or entry == "*" else [f"https://{entry}", entry]
    return tuple(dict.fromkeys(sources))


def _trusted_proxies(loaded: LoadedSettings) -> tuple[str, ...]:
    configured = loaded.settings.server.trusted_proxies
    if configured is not None:
        return tuple(str(ipaddress.ip_network(entry, strict=False)) for entry in configured)
    return PRIVATE_NETWORKS if loaded.platform.use_xheaders else ("127.0.0.1", "::1")


def _warnings(
    loaded: LoadedSettings,
    facts: Facts,
    store: StoreUri,
    destination: ArtifactUri,
    hosts: tuple[str, ...],
) -> Iterable[str]:
    settings, platform = loaded.settings, loaded.platform
    for definition_name, text in (
        ("MLFLOW_BACKEND_STORE_URI", settings.store.backend_store_uri.get_secret_value()),
        ("MLFLOW_REGISTRY_STORE_URI", _revealed(settings.store.registry_store_uri)),
        ("MLFLOW_READ_REPLICA_BACKEND_STORE_URI", _revealed(settings.store.read_replica_uri)),
        ("MLFLOW_ARTIFACTS_DESTINATION", settings.artifacts.destination),
    ):
        if loaded.source_of(definition_name) is Source.OPTION and mask_uri(text) != text:
            yield (
                "a password on the command line is visible to every user of this machine; "
                f"put the URI into the environment or a secret named {definition_name}"
            )
    if platform.unknown:
        names = ", ".join(f"--anaconda-project-{name}" for name in platform.unknown)
        yield f"flags of the platform that this release does not know are ignored: {names}"
    if any("*" in host for host in platform.hosts):
        yield (
            "the platform's host * is ignored: it would let every website in; "
            "set TRACKING_SERVER_PUBLIC_URL"
        )
    if "*" in hosts:
        yield "every Host header is accepted (*): web pages can reach this server by DNS rebinding"
    if "*" in settings.server.cors_allowed_origins:
        yield "every web origin may call the API (*)"
    if "*" in settings.server.frame_ancestors:
        yield "every website may show the UI in a frame (*)"
    if platform.present and not platform.hosts and not settings.server.public_url:
        yield (
            "the platform named no host: requests to a public name get 403; "
            "set TRACKING_SERVER_PUBLIC_URL"
        )
    project = facts.project_dir
    if project is not None and platform.present:
        if store.path is not None and _is_inside(store.path, project):
            yield (
                f"{store.shown} lies in the project folder, which the platform forgets at "
                "restart; set MLFLOW_BACKEND_STORE_URI to a database or a persistent volume"
            )
        if destination.path is not None and _is_inside(destination.path, project):
            yield (
                f"artifacts in {destination.shown} lie in the project folder, which the platform "
                "forgets at restart; set MLFLOW_ARTIFACTS_DESTINATION to a volume or a bucket"
            )
    if facts.store_on_network:
        yield (
            f"{store.shown} lies on a network file system, where SQLite's locks are not reliable; "
            "use PostgreSQL"
        )
    if facts.artifacts_on_network and destination.scheme is ArtifactScheme.LOCAL:
        yield f"artifacts in {destination.shown} lie on a network file system: expect it slow"


def _revealed(secret: object) -> str:
    reveal = getattr(secret, "get_secret_value", None)
    return str(reveal()) if reveal is not None else ""


def _is_inside(path: Path, folder: Path) -> bool:
    return path.expanduser().absolute().resolve().is_relative_to(folder.resolve())
