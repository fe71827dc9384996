"""Azure as the destination: a real server of the blob API, and its ways to fail.

Azurite has no Data Lake endpoint. For `abfss:` a stand-in answers, as the documentation of Azure
says; what a real Data Lake makes of it is not covered, and neither is a server that keeps its
artifacts there.
"""

from __future__ import annotations

import base64
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlflow_server.artifacts.probe import require_library
from mlflow_server.errors import SettingsError
from mlflow_server.uris import parse_artifacts_destination
from tests.standins.intercept import intercepted
from tests.standins.lake import run_lake
from tests.standins.network import silent_listener
from tests.support.azure import AzureServer
from tests.support.destinations import KEPT, heavy_imports, use_artifacts
from tests.support.examinations import examine
from tests.support.forks import serve
from tests.support.places import Place
from tests.support.programs import DESTINATION, free_port
from tests.support.refusals import refusal

pytestmark = pytest.mark.xdist_group("azure")
CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCESS_KEY = "AZURE_STORAGE_ACCESS_KEY"
SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"
SOMEWHERE = "wasbs://container@account.blob.core.windows.net/artifacts"
SOME_LAKE = "abfss://files@account.dfs.core.windows.net/arti%20facts"
HIDDEN_KEY = base64.b64encode(b"hidden" * 8).decode()


def anywhere(port: int) -> dict[str, str]:
    """A destination at a port where no Azure is."""
    endpoint = f"http://127.0.0.1:{port}/account"
    text = f"AccountName=account;AccountKey={HIDDEN_KEY};BlobEndpoint={endpoint}"
    return {CONNECTION_STRING: text, DESTINATION: SOMEWHERE}


@pytest.fixture
def container(azurite: AzureServer) -> str:
    """A new container of this test alone."""
    return azurite.new_container()


# --- It works ----------------------------------------------------------------------------------


def test_server_keeps_artifacts_there_and_no_probe(
    place: Place, azurite: AzureServer, container: str
) -> None:
    environment = {
        CONNECTION_STRING: azurite.connection_string,
        DESTINATION: azurite.uri(container),
    }
    with serve(place.project, "-vv", environment=environment) as server:
        use_artifacts(server)
        assert "threads at the time of a fork" not in server.log
        assert server.stop() == 0
        assert azurite.key not in server.log
    assert azurite.content(container) == [f"artifacts/{KEPT}"]


def test_server_with_an_access_key(
    place: Place, azurite: AzureServer, container: str, tmp_path: Path
) -> None:
    """The way to Azure itself: the account's host, https, the key from the secrets folder."""
    secrets = place.root / "secrets"
    secrets.mkdir()
    (secrets / ACCESS_KEY).write_text(azurite.key + "\n")
    hosts = [f"{azurite.account}.blob.core.windows.net"]
    with intercepted(azurite.port, hosts, tmp_path) as cloud:
        environment = {
            **cloud.environment,
            "TRACKING_SERVER_SECRETS_DIR": str(secrets),
            DESTINATION: azurite.uri(container),
        }
        examine(place, environment=environment).check(0)
        assert azurite.content(container) == []
        with serve(place.project, environment=environment) as server:
            use_artifacts(server)
            assert server.stop() == 0
            assert azurite.key not in server.log
    assert azurite.content(container) == [f"artifacts/{KEPT}"]


def test_doctor_probes_it_and_leaves_nothing(
    place: Place, azurite: AzureServer, container: str
) -> None:
    environment = {
        CONNECTION_STRING: azurite.connection_string,
        DESTINATION: azurite.uri(container),
    }
    found = examine(place, environment=environment)
    found.check(0)
    assert found.items["artifacts"]["status"] == "ok"
    assert azurite.content(container) == []


# --- It is refused -----------------------------------------------------------------------------


def test_missing_container_is_69_and_stays_missing(place: Place, azurite: AzureServer) -> None:
    name = f"missing-{uuid.uuid4().hex}"
    environment = {CONNECTION_STRING: azurite.connection_string, DESTINATION: azurite.uri(name)}
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert f"no container '{name}'" in found.errors[0]
    assert azurite.key not in found.text
    assert name not in azurite.containers()
    assert heavy_imports(place, environment) == set()
    examine(place, environment=environment).check(69, "artifacts")


@pytest.mark.parametrize("verbose", [(), ("-vv", "--debug")], ids=["", "verbose"])
def test_wrong_key_is_77(
    place: Place, azurite: AzureServer, container: str, verbose: tuple[str, ...]
) -> None:
    environment = {
        CONNECTION_STRING: azurite.connection_string_with(key=HIDDEN_KEY),
        DESTINATION: azurite.uri(container),
    }
    if verbose:
        ended = place.run("serve", *verbose, environment=environment)
        assert ended.returncode == 77
        assert HIDDEN_KEY not in ended.stderr
        return
    found = refusal(place, environment=environment)
    assert found.code == 77
    assert "refuses" in found.errors[0]
    assert "Storage Blob Data Contributor" in found.text
    assert HIDDEN_KEY not in found.text
    assert azurite.content(container) == []
    assert heavy_imports(place, environment) == set()


def test_refused_port_is_69(place: Place) -> None:
    environment = anywhere(port := free_port())
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert f"127.0.0.1:{port}" in found.errors[0]
    assert HIDDEN_KEY not in found.text
    assert heavy_imports(place, environment) == set()


def test_endpoint_that_accepts_and_never_answers_is_69_in_time(place: Place) -> None:
    with silent_listener() as port:
        found = refusal(place, environment=anywhere(port))
        assert heavy_imports(place, anywhere(port)) == set()
        looked = examine(place, environment=anywhere(port), attempts=1)
    assert found.code == 69
    looked.check(69, "artifacts")


def test_unknown_account_is_69(place: Place) -> None:
    environment = {ACCESS_KEY: HIDDEN_KEY, DESTINATION: SOMEWHERE.replace("account", "no-such")}
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert "no-such.blob.core.windows.net" in found.errors[0]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (CONNECTION_STRING, "hidden"),
        (CONNECTION_STRING, "AccountName=account;AccountKey=hidden"),
        (CONNECTION_STRING, f"AccountKey={HIDDEN_KEY};BlobEndpoint=not an address"),
        (CONNECTION_STRING, ""),
        (ACCESS_KEY, "hidden"),
        (ACCESS_KEY, ""),
    ],
)
def test_nonsense_is_78_and_names_the_setting(place: Place, setting: str, text: str) -> None:
    found = refusal(place, environment={setting: text, DESTINATION: SOMEWHERE}, plain=False)
    assert found.code == 78
    assert found.errors[0].startswith(f"{setting}: ")
    assert "hidden" not in found.text
    assert HIDDEN_KEY not in found.text


@pytest.mark.parametrize("uri", [SOMEWHERE, SOME_LAKE])
def test_no_credentials_are_77(place: Place, uri: str) -> None:
    """Neither key nor anything that DefaultAzureCredential finds."""
    environment = {DESTINATION: uri}
    # DefaultAzureCredential makes this folder, for a cache that it then finds empty.
    (place.root / "home/.IdentityService").mkdir()
    found = refusal(place, environment=environment)
    assert found.code == 77
    assert "no Azure credentials" in found.errors[0]
    assert "AZURE_CLIENT_ID" in found.hints[0]
    assert heavy_imports(place, environment) == set()
    examine(place, environment=environment).check(3, "artifacts")


@pytest.mark.parametrize(
    "uri",
    [
        "wasbs://account.blob.core.windows.net/artifacts",
        "wasbs://container@account.example.com/artifacts",
        "abfss://account.dfs.core.windows.net/artifacts",
    ],
)
def test_uri_that_mlflow_would_not_read_is_78(place: Place, uri: str) -> None:
    found = refusal(place, environment={DESTINATION: uri, ACCESS_KEY: HIDDEN_KEY}, plain=False)
    assert found.code == 78
    assert found.errors[0].startswith(DESTINATION)
    assert "CONTAINER@ACCOUNT." in found.text


def test_identity_is_not_needed_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    require_library(parse_artifacts_destination(SOMEWHERE, plugin_schemes=frozenset()))
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(SettingsError, match=r"azure\.storage\.blob"):
        require_library(parse_artifacts_destination(SOMEWHERE, plugin_schemes=frozenset()))


# --- Data Lake ---------------------------------------------------------------------------------

TOKEN = "sv=2026-01-01&sp=rcwd&sig=hiddenhidden%3D"


@pytest.mark.parametrize(
    ("change", "broken", "code", "words"),
    [
        ({}, "", 0, "write, read, delete work"),
        ({SAS_TOKEN: TOKEN.replace("hidden", "secret")}, "", 3, "refuses"),
        ({DESTINATION: SOME_LAKE.replace("files", "missing")}, "", 69, "'missing'"),
        ({}, "append", 69, "500 InternalError"),
        ({}, "flush", 69, "500 InternalError"),
        ({}, "read", 69, "500 InternalError"),
    ],
    ids=["works", "wrong token", "missing", "append", "flush", "read"],
)
def test_doctor_probes_a_lake(
    place: Place, tmp_path: Path, change: Mapping[str, str], broken: str, code: int, words: str
) -> None:
    hosts = ["account.dfs.core.windows.net", "account.blob.core.windows.net"]
    with run_lake(broken) as lake, intercepted(lake.port, hosts, tmp_path) as cloud:
        environment = {**cloud.environment, SAS_TOKEN: TOKEN, DESTINATION: SOME_LAKE, **change}
        found = examine(place, environment=environment)
    assert words in found.items["artifacts"]["detail"]
    assert "secret" not in found.items["artifacts"]["detail"]
    found.check(code, *(["artifacts"] if code else []))
    assert lake.files == {}
    if code == 0:
        assert lake.seen == ["create", "append", "flush", "read", "delete"]


def test_unreachable_lake_is_69(place: Place) -> None:
    environment = {DESTINATION: SOME_LAKE.replace("account", "no-such"), SAS_TOKEN: TOKEN}
    found = refusal(place, environment=environment)
    assert found.code == 69
    assert "no-such.dfs.core.windows.net" in found.errors[0]
    assert "hidden" not in found.text
    assert heavy_imports(place, environment) == set()
