"""What is Azure's own: batches, leases, snapshots, and folders in hierarchical accounts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import SettingsError
from mlflow_server.uris import parse_artifacts_destination
from tests.standins.forwarder import Forwarder, Reply, Request, forwarder
from tests.support.azure import AzureServer
from tests.support.shelves import PREFIX, Shelf, azure_shelf

pytestmark = pytest.mark.xdist_group("azure")


@pytest.fixture
def shelf(azurite: AzureServer) -> Shelf:
    """A prefix of a container of this test alone."""
    return azure_shelf(azurite, azurite.new_container())


@pytest.fixture
def between(shelf: Shelf) -> Iterator[Forwarder]:
    """Stands between the client and the server."""
    with forwarder(shelf.port) as running:
        yield running


@pytest.fixture
def removers(shelf: Shelf, between: Forwarder) -> Iterator[Removers]:
    """Of the shelf, through what stands between."""
    opened = Removers(shelf.destination, shelf.at_port(between.port))
    yield opened
    opened.close()


@pytest.fixture
def blobs(azurite: AzureServer, shelf: Shelf) -> Iterator[Any]:
    """The library's client of the container."""
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        yield service.get_container_client(shelf.destination.bucket.partition("@")[0])


def of(*runs: str) -> list[tuple[str, str]]:
    """What `Removers` are asked for."""
    return [(f"mlflow-artifacts:/1/{run}", run) for run in runs]


def test_a_batch_is_one_request(shelf: Shelf, between: Forwarder, removers: Removers) -> None:
    shelf.lay(*(f"1/{run}/{name}" for run in "rst" for name in range(100)), "1/x")
    assert removers.remove(of(*"rst")) == [Freed(100, 500)] * 3
    found = Counter(request.method for request in between.requests)
    assert found == {"GET": 4, "POST": 2}, "one question is for the kind of account"
    assert shelf.paths() == {"1/x"}


def test_a_blob_that_cannot_be_deleted_is_told_for_its_place_only(
    shelf: Shelf, removers: Removers, blobs: Any
) -> None:
    shelf.lay("1/r/a", "1/r/b", "1/s/a")
    lease = blobs.get_blob_client(f"{PREFIX}/1/r/b").acquire_lease()
    refused, freed = removers.remove(of("r", "s"))
    subject = f"MLFLOW_ARTIFACTS_DESTINATION: {shelf.text}"
    assert refused == f"{subject}: Azure refuses to delete (LeaseIdMissing)"
    assert freed == Freed(1, 5)
    assert shelf.paths() == {"1/r/b"}
    lease.release()
    assert removers.remove(of("r", "s")) == [Freed(1, 5), Freed()]


def test_snapshots_go_along(shelf: Shelf, removers: Removers, blobs: Any) -> None:
    shelf.lay("1/r/a")
    blobs.get_blob_client(f"{PREFIX}/1/r/a").create_snapshot()
    assert removers.remove(of("r")) == [Freed(1, 5)]
    assert list(blobs.list_blobs(include=["snapshots"])) == []


def test_folders_of_a_hierarchical_account_go_at_last(
    shelf: Shelf, between: Forwarder, removers: Removers, blobs: Any
) -> None:
    """Azurite has flat accounts only: blobs with a note play the folders."""
    for folder in ("1", "1/r", "1/r/artifacts", "1/r/artifacts/deep", "1/s", "1/t"):
        blobs.upload_blob(f"{PREFIX}/{folder}", b"", metadata={"hdi_isfolder": "true"})
    shelf.lay("1/r/artifacts/deep/a", "1/r/artifacts/b", "1/t/c")

    def account(request: Request) -> Reply | None:
        is_asked = "restype=account" in request.path
        return Reply(200, b"", {"x-ms-is-hns-enabled": "true"}) if is_asked else None

    between.answers = account
    assert removers.remove(of("r", "s")) == [Freed(2, 10), Freed()]
    assert shelf.paths() == {"1", "1/t", "1/t/c"}
    batches = [request.body.decode() for request in between.requests if request.method == "POST"]
    gone = [re.findall(r"/1/(\S+)\?? HTTP", batch) for batch in batches]
    assert [sorted(name.rstrip("?") for name in names) for names in gone] == [
        ["r/artifacts/b", "r/artifacts/deep/a"],
        ["r/artifacts/deep"],
        ["r/artifacts"],
        ["r", "s"],
    ]


def test_a_folder_of_a_hierarchical_account_stays_with_what_is_beside_the_location(
    shelf: Shelf, between: Forwarder, removers: Removers, blobs: Any
) -> None:
    for folder in ("1/r", "1/r/a", "1/r/a/deep", "1/s", "1/s/a"):
        blobs.upload_blob(f"{PREFIX}/{folder}", b"", metadata={"hdi_isfolder": "true"})
    shelf.lay("1/r/a/deep/x", "1/r/beside", "1/s/a/y")

    def account(request: Request) -> Reply | None:
        is_asked = "restype=account" in request.path
        return Reply(200, b"", {"x-ms-is-hns-enabled": "true"}) if is_asked else None

    between.answers = account
    asked = [(f"mlflow-artifacts:/1/{run}/a", run) for run in "rs"]
    assert removers.remove(asked) == [Freed(1, 5)] * 2
    assert shelf.paths() == {"1/r", "1/r/beside"}


@pytest.mark.parametrize("uri", ["wasbs://x@y.example/z", "abfss://x/z"])
def test_a_place_that_cannot_be_meant_is_78(uri: str) -> None:
    destination = parse_artifacts_destination(uri, plugin_schemes=frozenset())
    removers = Removers(destination, {"AZURE_STORAGE_ACCESS_KEY": "hidden"})
    with pytest.raises(SettingsError, match="is not of the form"):
        removers.check()
    (found,) = removers.remove(of("r"))
    assert isinstance(found, str)
    assert "hidden" not in found
