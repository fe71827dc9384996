"""Backend store and artifact URIs: every form that operators write, and no credential shown."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.uris import (
    DRIVERS,
    MASK,
    ArtifactScheme,
    Dialect,
    credentials_in,
    mask_uri,
    parse_artifacts_destination,
    parse_store_uri,
)

SECRET = "S3cr3tMarker"
NO_PLUGINS: frozenset[str] = frozenset()


# Backend stores


@pytest.mark.parametrize(
    ("text", "dialect", "driver", "path"),
    [
        ("sqlite:///data/my.db", Dialect.SQLITE, None, "data/my.db"),
        ("sqlite:////srv/my.db", Dialect.SQLITE, None, "/srv/my.db"),
        ("sqlite+pysqlite:///my.db", Dialect.SQLITE, "pysqlite", "my.db"),
        ("sqlite:///file:data/my.db?mode=rw&uri=true", Dialect.SQLITE, None, "data/my.db"),
        ("postgresql://u:p@db/mlflow", Dialect.POSTGRESQL, None, None),
        ("postgresql://db/mlflow?sslmode=require", Dialect.POSTGRESQL, None, None),
        ("postgresql:///mlflow?host=/run/postgresql", Dialect.POSTGRESQL, None, None),
        ("postgresql://u:p@[::1]:5432/mlflow", Dialect.POSTGRESQL, None, None),
        ("mysql://u:p@db:3306/mlflow", Dialect.MYSQL, None, None),
        ("mssql+pyodbc://u:p@db/mlflow?driver=ODBC+18", Dialect.MSSQL, "pyodbc", None),
        ("mssql+pyodbc:///?odbc_connect=DSN%3Dx", Dialect.MSSQL, "pyodbc", None),
    ],
)
def test_reads_store_uris(
    text: str, dialect: Dialect, driver: str | None, path: str | None
) -> None:
    uri = parse_store_uri(text)
    assert (uri.text, uri.dialect, uri.driver) == (text, dialect, driver)
    assert uri.path == (Path(path) if path else None)
    assert uri.is_sqlite is (dialect is Dialect.SQLITE)


@pytest.mark.parametrize(
    ("dialect", "driver"),
    [(dialect, driver) for dialect, drivers in DRIVERS.items() for driver in drivers],
)
def test_reads_every_driver(dialect: Dialect, driver: str) -> None:
    place = "/my.db" if dialect is Dialect.SQLITE else "u:p@db/mlflow"
    assert parse_store_uri(f"{dialect}+{driver}://{place}").driver == driver


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a database URI"),
        ("mlruns", "is not a database URI"),
        ("./mlruns", "is not a database URI"),
        ("sqlite:mlflow.db", "is not a database URI"),
        ("postgres://u:p@db/mlflow", "write postgresql://"),
        ("oracle://u:p@db/mlflow", "no database MLflow knows"),
        ("file:///mlruns", "no database MLflow knows"),
        ("http://mlflow.example.com", "no database MLflow knows"),
        ("PostgreSQL://db/mlflow", "no database MLflow knows"),
        ("postgresql+asyncpg://u:p@db/mlflow", "unknown driver 'asyncpg'"),
        ("sqlite+aiosqlite:///my.db", "unknown driver"),
        ("postgresql://u:p@db:abc/mlflow", "port must be a number"),
        ("postgresql://u:p@db:0/mlflow", "port outside 1 to 65535"),
        ("postgresql://u:p@db:70000/mlflow", "port outside 1 to 65535"),
        ("postgresql://u:p@db", "names no database"),
        ("postgresql://u:p@db/", "names no database"),
        ("sqlite://my.db", "needs three slashes"),
        ("sqlite://", "in-memory"),
        ("sqlite:///", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "in-memory"),
        ("sqlite:///file:name?mode=memory&uri=true", "in-memory"),
    ],
)
def test_refuses_store_uris_that_mlflow_cannot_open(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_store_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://u:{SECRET}@db/mlflow",
        f"oracle://u:{SECRET}@db/mlflow",
        f"postgresql+asyncpg://u:{SECRET}@db/mlflow",
        f"postgresql://u:{SECRET}@db:70000/mlflow",
        f"postgresql://u:{SECRET}@db:port/mlflow",
        f"postgresql://u:{SECRET}@db",
        SECRET,
    ],
)
def test_a_refusal_never_repeats_the_uri(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|names|known|has a|cannot") as caught:
        parse_store_uri(text)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_representation_shows_no_password() -> None:
    uri = parse_store_uri(f"postgresql://ops:{SECRET}@db/mlflow")
    assert SECRET not in repr(uri)
    assert uri.shown == f"postgresql://ops:{MASK}@db/mlflow"


# Masking

# What people put into passwords: everything printable, and some that nobody expects.
likely = st.sampled_from("@:/?#%&;=+ []{}'\"\\\t~,!$*()é€")
specials = st.text(st.one_of(likely, st.characters(codec="utf-8")), max_size=12)
passwords = st.tuples(specials, specials).map(SECRET.join)
users = st.text(alphabet="abcXYZ019._-%@ é", max_size=10)
bases = st.sampled_from(
    ["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc", "s3", "https", "sftp"]
)
tails = st.sampled_from(["db/mlflow", "db:5432/mlflow?sslmode=require", "[::1]:1/x", "bucket/a/b"])


@given(base=bases, user=users, password=passwords, tail=tails)
def test_masks_a_password_that_is_percent_encoded(
    base: str, user: str, password: str, tail: str
) -> None:
    uri = f"{base}://{quote(user, safe='')}:{quote(password, safe='')}@{tail}"
    masked = mask_uri(uri)
    assert SECRET not in masked
    assert masked == f"{base}://{quote(user, safe='')}:{MASK}@{tail}"
    assert {password, quote(password, safe="")} <= credentials_in(uri) | {""}


@given(base=bases, user=users, password=passwords, tail=tails)
def test_masks_a_password_that_is_not_encoded(
    base: str, user: str, password: str, tail: str
) -> None:
    uri = f"{base}://{user}:{password}@{tail}"
    assert SECRET not in mask_uri(uri)
    assert any(SECRET in credential for credential in credentials_in(uri))


@given(user=users, password=passwords)
def test_a_store_uri_shows_no_password_however_it_is_written(user: str, password: str) -> None:
    for text in (
        f"postgresql://{user}:{password}@db/mlflow",
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db/mlflow",
    ):
        try:
            uri = parse_store_uri(text)
        except ValueError as err:
            assert SECRET not in str(err)
        else:
            assert SECRET not in uri.shown + repr(uri)


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://mlflow@server:{SECRET}@server.postgres.database.azure.com/mlflow",
        f"postgresql://a/b:{SECRET}@db/mlflow",
        f"postgresql://u?x:{SECRET}@db/mlflow",
        f"postgresql://u#x:{SECRET}@db/mlflow",
        f"postgresql://a b:{SECRET}@db/mlflow",
        f"postgresql://u:with {SECRET} spaces@db/mlflow",
        f"postgresql://u:{SECRET}@db/mlflow?options=a@b",
        f"postgresql://:{SECRET}@db/mlflow",
        f"postgresql://u:{SECRET}\n@db/mlflow",
        f" postgresql://u:{SECRET}@db/mlflow",
    ],
)
def test_masks_passwords_beside_unusual_users(uri: str) -> None:
    assert SECRET not in mask_uri(uri)
    assert any(SECRET in credential for credential in credentials_in(uri))


@pytest.mark.parametrize(
    "query",
    [
        f"password={SECRET}",
        f"user=u&password={SECRET}&sslmode=require",
        f"PassWord={SECRET}",
        f"sslpassword={SECRET}",
        f"passwd={SECRET}",
        f"secret_access_key={SECRET}",
        f"aws_session_token={SECRET}",
        f"sig={SECRET}",
        f"password=a b{SECRET}",
        f"password=%20{SECRET}",
        f"odbc_connect=DRIVER%3D%7BODBC+18%7D%3BUID%3Dops%3BPWD%3D{SECRET}%3B",
        f"odbc_connect=DRIVER={{ODBC 18}};UID=ops;PWD={SECRET}",
    ],
)
def test_masks_credentials_in_the_query(query: str) -> None:
    uri = f"mssql+pyodbc://db/mlflow?{query}"
    assert SECRET not in mask_uri(uri)
    assert any(SECRET in credential for credential in credentials_in(uri))


def test_knows_the_password_that_the_driver_will_use() -> None:
    from sqlalchemy.engine.url import make_url

    uri = f"postgresql://u:{SECRET}@db/mlflow?options=a@b"
    assert make_url(uri).password == SECRET
    assert SECRET in credentials_in(uri)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data/artifacts",
        "sqlite:////srv/a:b@c/my.db",
        "postgresql://ops@db/mlflow?sslmode=require",
        "s3://bucket/a@b:c",
        "hdfs://name:8020/mlflow",
        "mlflow-artifacts:/",
        "https://mlflow.example.com:8443/a?b=c",
    ],
)
def test_leaves_alone_what_holds_no_credential(text: str) -> None:
    assert mask_uri(text) == text
    assert credentials_in(text) == set()


@given(st.text(max_size=80))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = mask_uri(text)
    assert mask_uri(once) == once


# Artifact destinations


@pytest.mark.parametrize(
    ("text", "scheme", "path", "bucket", "prefix"),
    [
        ("data/artifacts", ArtifactScheme.LOCAL, "data/artifacts", "", ""),
        ("/srv/artifacts", ArtifactScheme.LOCAL, "/srv/artifacts", "", ""),
        ("./a b/c#d", ArtifactScheme.LOCAL, "./a b/c#d", "", ""),
        ("file:///srv/a%20b", ArtifactScheme.LOCAL, "/srv/a b", "", ""),
        ("/srv/a%20b", ArtifactScheme.LOCAL, "/srv/a b", "", ""),
        ("file://localhost/srv/a", ArtifactScheme.LOCAL, "/srv/a", "", ""),
        ("file:/srv/a", ArtifactScheme.LOCAL, "/srv/a", "", ""),
        ("s3://bucket", ArtifactScheme.S3, None, "bucket", ""),
        ("s3://bucket/a/b/", ArtifactScheme.S3, None, "bucket", "a/b"),
        ("S3://bucket/a", ArtifactScheme.S3, None, "bucket", "a"),
        ("gs://bucket/a", ArtifactScheme.GCS, None, "bucket", "a"),
        (
            "wasbs://c@acc.blob.core.windows.net/a",
            ArtifactScheme.AZURE,
            None,
            "c@acc.blob.core.windows.net",
            "a",
        ),
        (
            "abfss://fs@acc.dfs.core.windows.net/a",
            ArtifactScheme.AZURE,
            None,
            "fs@acc.dfs.core.windows.net",
            "a",
        ),
        ("hdfs://name:8020/a", ArtifactScheme.OTHER, None, "name:8020", "a"),
        ("hdfs:///a", ArtifactScheme.OTHER, None, "", "a"),
        ("sftp://u@host/a", ArtifactScheme.OTHER, None, "u@host", "a"),
        ("mlflow-artifacts:/", ArtifactScheme.PROXY, None, "", ""),
        ("mlflow-artifacts://host:5000/a", ArtifactScheme.PROXY, None, "host:5000", "a"),
    ],
)
def test_reads_artifact_destinations(
    text: str, scheme: ArtifactScheme, path: str | None, bucket: str, prefix: str
) -> None:
    uri = parse_artifacts_destination(text, plugin_schemes=NO_PLUGINS)
    assert (uri.text, uri.scheme, uri.bucket, uri.prefix) == (text, scheme, bucket, prefix)
    assert uri.path == (Path(path) if path else None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s4://bucket", "'s4', which MLflow has no artifact repository for"),
        ("minio://bucket", "no artifact repository"),
        ("s3:bucket/a", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("gs://", "names no bucket"),
        ("file://host/srv/a", "names a host"),
        ("s3://[bucket/a", "cannot be read"),
    ],
)
def test_refuses_destinations_without_a_repository(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_artifacts_destination(text, plugin_schemes=NO_PLUGINS)


def test_knows_every_scheme_that_mlflow_has_a_repository_for() -> None:
    """Compared with the text of the installed MLflow: importing it takes seconds."""
    import importlib.util
    import re

    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    registry = Path(spec.origin).parent / "store/artifact/artifact_repository_registry.py"
    text = registry.read_text("utf-8")
    schemes = set(re.findall(r'_artifact_repository_registry\.register\(\s*"([^"]+)"', text))
    assert len(schemes) > 10
    # Of clients, not of a server: a server keeps artifacts where these lead to.
    schemes -= {"runs", "models", "mlflow-artifacts"}
    unknown = set()
    for scheme in sorted(schemes):
        try:
            parse_artifacts_destination(f"{scheme}://localhost/a", plugin_schemes=NO_PLUGINS)
        except ValueError:
            unknown.add(scheme)
    assert not unknown


def test_a_plugin_adds_its_scheme() -> None:
    uri = parse_artifacts_destination("oss://bucket/a", plugin_schemes=frozenset({"oss"}))
    assert uri.scheme is ArtifactScheme.OTHER


@given(user=users, password=passwords)
def test_a_destination_shows_no_password(user: str, password: str) -> None:
    text = f"sftp://{user}:{password}@host/artifacts"
    try:
        uri = parse_artifacts_destination(text, plugin_schemes=NO_PLUGINS)
    except ValueError as err:
        assert SECRET not in str(err)
    else:
        assert SECRET not in uri.shown


def test_the_representation_of_a_destination_shows_no_password() -> None:
    text = f"sftp://u:{SECRET}@host/artifacts"
    assert SECRET not in repr(parse_artifacts_destination(text, plugin_schemes=NO_PLUGINS))
