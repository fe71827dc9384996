"""Backend store URIs and artifact URIs: read, judge, mask. Pure, no network, no files."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

MASK = "***"
# Query parameters that carry a credential: libpq and driver passwords, and access keys.
_SECRET_PARAMETER = re.compile(
    r"(?i)((?:[?&;]|%3B)(?:[a-z_.-]*(?:password|passwd|pwd|passphrase|secret|token|accountkey|"
    r"account_key|access_key|sig|sslkey)[a-z_.-]*)(?:=|%3D))((?:(?!%3B)[^&;#])*)"
)
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


class Dialect(StrEnum):
    """Databases that MLflow can keep a store in."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MSSQL = "mssql"


# SQLAlchemy driver name -> (module to import, what to install), most wanted first.
DRIVERS: dict[Dialect, dict[str, tuple[str, str]]] = {
    Dialect.SQLITE: {"pysqlite": ("sqlite3", "python with sqlite3")},
    # psycopg2 first: with MLflow's statements it takes less CPU (docs/design/serve.md).
    Dialect.POSTGRESQL: {
        "psycopg2": ("psycopg2", "psycopg2-binary"),
        "psycopg": ("psycopg", "psycopg[binary]"),
        "pg8000": ("pg8000", "pg8000"),
    },
    Dialect.MYSQL: {
        "pymysql": ("pymysql", "pymysql"),
        "mysqldb": ("MySQLdb", "mysqlclient"),
        "mysqlconnector": ("mysql.connector", "mysql-connector-python"),
    },
    Dialect.MSSQL: {"pyodbc": ("pyodbc", "pyodbc"), "pymssql": ("pymssql", "pymssql")},
}
SUPPORTED_STORES = "sqlite:///, postgresql://, mysql+pymysql://, mssql+pyodbc://"


@dataclass(frozen=True)
class StoreUri:
    """A backend store URI that has been understood.

    Args:
        text: The URI as given; may hold a password.
        dialect: The database.
        driver: SQLAlchemy's driver name when the URI names one.
        path: The file of a SQLite store, as written (perhaps relative); None in memory.
        shown: The URI without credentials, fit for messages.
    """

    text: str
    dialect: Dialect
    driver: str | None
    path: Path | None
    shown: str
    setting: str = "MLFLOW_BACKEND_STORE_URI"

    def __repr__(self) -> str:
        return f"StoreUri({self.shown})"

    @property
    def is_sqlite(self) -> bool:
        """A SQLite store, in a file or in memory."""
        return self.dialect is Dialect.SQLITE


def parse_store_uri(text: str, setting: str = "MLFLOW_BACKEND_STORE_URI") -> StoreUri:
    """Read a backend store URI.

    Raises:
        ValueError: It is not one that MLflow can open. The message never holds the URI.

    Source: dialects of MLflow 3.17.2 `store/db/db_types.py`.
    """
    from sqlalchemy.engine.url import make_url
    from sqlalchemy.exc import ArgumentError

    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError(f"is not a database URI; write one of {SUPPORTED_STORES}")
    name, _, driver = scheme.partition("+")
    if name == "postgres":
        raise ValueError("begins with postgres://; write postgresql://")
    try:
        dialect = Dialect(name)
    except ValueError:
        raise ValueError(
            f"has the scheme {name[:20]!r}, which is no database MLflow knows; "
            f"write one of {SUPPORTED_STORES}"
        ) from None
    if driver and driver not in DRIVERS[dialect]:
        known = ", ".join(DRIVERS[dialect])
        raise ValueError(f"names the unknown driver {driver[:20]!r}; known for {dialect}: {known}")
    try:
        url = make_url(text)
        if "@" in (url.host or ""):
            raise ValueError
    except (ArgumentError, ValueError):
        raise ValueError(
            "cannot be read as a URI; characters such as @ / : # % in a password "
            "must be percent-encoded, and a port must be a number"
        ) from None
    if url.port is not None and not 0 < url.port < 65_536:
        raise ValueError("has a port outside 1 to 65535")
    if dialect is Dialect.SQLITE and url.host:
        raise ValueError("needs three slashes, sqlite:///relative/path, or four, sqlite:////abs")
    if dialect is not Dialect.SQLITE and not (url.database or url.query):
        raise ValueError("names no database; end it with /NAME")
    path = None
    if dialect is Dialect.SQLITE and url.database and url.database != ":memory:":
        database = url.database
        if database.startswith("file:"):
            database = unquote(urlsplit(database).path)
        path = Path(database)
    in_memory = path is None or url.query.get("mode") == "memory" or path.name == ":memory:"
    if dialect is Dialect.SQLITE and in_memory:
        raise ValueError("is an in-memory database, which every worker would have its own of")
    return StoreUri(text, dialect, driver or None, path, mask_uri(text), setting)


def mask_uri(text: str) -> str:
    """Replace every credential in a URI by `***`; anything else stays readable.

    A text that is not a URI comes back unchanged. As a password may hold any character when its
    writer forgot to encode it, everything from the first colon to the last `@` is masked.
    """
    place = _password_place(text)
    if place is not None:
        text = text[: place[0]] + MASK + text[place[1] :]
    return _SECRET_PARAMETER.sub(rf"\g<1>{MASK}", text)


def credentials_in(text: str) -> set[str]:
    """The credentials in a URI, as written and decoded: what must never be printed."""
    found = {value for _, value in _SECRET_PARAMETER.findall(text)}
    place = _password_place(text)
    if place is not None:
        whole = text[place[0] : place[1]]
        # Drivers take the password to end at the first @.
        found |= {whole, whole.partition("@")[0]}
    return {form for value in found if value for form in (value, unquote(value))}


def _password_place(text: str) -> tuple[int, int] | None:
    """Where the password of a URI stands: index of its first character and of the `@` after it."""
    scheme = _SCHEME.match(text)
    if scheme is None or text.startswith("/", scheme.end()):
        return None
    end = text.rfind("@")
    colon = text.find(":", scheme.end(), end) if end > scheme.end() else -1
    return (colon + 1, end) if colon >= 0 else None


class ArtifactScheme(StrEnum):
    """Kinds of artifact destinations that are told apart here; MLflow knows more (`OTHER`)."""

    LOCAL = "local"
    S3 = "s3"
    GCS = "gs"
    AZURE = "azure"
    PROXY = "mlflow-artifacts"
    OTHER = "other"


_OBJECT_STORES = {
    "s3": ArtifactScheme.S3,
    "gs": ArtifactScheme.GCS,
    "wasbs": ArtifactScheme.AZURE,
    "abfss": ArtifactScheme.AZURE,
}
# MLflow 3.17.2 store/artifact/artifact_repository_registry.py, less those with a kind of their own.
_OTHER_SCHEMES = frozenset({"hdfs", "viewfs", "dbfs", "ftp", "sftp", "http", "https", "r2", "b2"})


@dataclass(frozen=True)
class ArtifactUri:
    """An artifact destination that has been understood.

    Args:
        text: The URI or path as given.
        scheme: What kind it is.
        path: The folder, for `LOCAL` only, as written (perhaps relative).
        bucket: Bucket, container or host, for object stores.
        prefix: Key prefix without slashes at either end.
        shown: The URI without credentials.
    """

    text: str
    scheme: ArtifactScheme
    path: Path | None
    bucket: str
    prefix: str
    shown: str

    def __repr__(self) -> str:
        return f"ArtifactUri({self.shown})"

    @classmethod
    def of_folder(cls, path: Path) -> "ArtifactUri":
        """A folder of a local disk, called as it is: nothing of its name is decoded."""
        return cls(str(path), ArtifactScheme.LOCAL, path, "", "", str(path))


def parse_artifacts_destination(text: str, *, plugin_schemes: frozenset[str]) -> ArtifactUri:
    """Read an artifact destination; a URI is never taken for the name of a folder.

    Args:
        text: Local path or URI.
        plugin_schemes: Further schemes that installed MLflow plugins serve.

    Raises:
        ValueError: MLflow has no artifact repository for it.
    """
    shown = mask_uri(text)
    match = re.match(r"^([A-Za-z][A-Za-z0-9+.-]+):", text)
    if match is None:
        # MLflow 3.17.2 `utils/file_utils.py` `local_file_uri_to_path` decodes paths, too.
        return ArtifactUri(text, ArtifactScheme.LOCAL, Path(unquote(text)), "", "", shown)
    scheme = match[1].lower()
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("cannot be read as a URI") from None
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError("names a host; write file:///absolute/path")
        path = Path(unquote(parts.path))
        return ArtifactUri(text, ArtifactScheme.LOCAL, path, "", "", shown)
    prefix = parts.path.strip("/")
    if scheme == "mlflow-artifacts":
        return ArtifactUri(text, ArtifactScheme.PROXY, None, parts.netloc, prefix, shown)
    if scheme in _OBJECT_STORES:
        kind = _OBJECT_STORES[scheme]
    elif scheme in _OTHER_SCHEMES or scheme in plugin_schemes:
        kind = ArtifactScheme.OTHER
    else:
        raise ValueError(
            f"has the scheme {scheme[:20]!r}, which MLflow has no artifact repository for; "
            "write a local path, s3://BUCKET/PREFIX, gs://, wasbs://, abfss:// or hdfs://"
        )
    if kind is not ArtifactScheme.OTHER and not parts.netloc:
        raise ValueError(f"names no bucket; write {scheme}://BUCKET/PREFIX")
    return ArtifactUri(text, kind, None, parts.netloc, prefix, shown)
