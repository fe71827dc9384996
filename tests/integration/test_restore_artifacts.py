"""Artifacts go from disk to bucket and back, whatever they are called, and rows follow them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.direct import (
    AWKWARD,
    STRAY,
    Direct,
    files_of,
    locations,
    make_direct,
    objects_of,
)
from tests.support.everything_place import (
    BACKUPS,
    Copy,
    Everything,
    assert_goes_on,
    assert_same,
    assert_sound,
    command,
    dump_of,
    serving,
)
from tests.support.places import snapshot
from tests.support.s3 import S3Server

pytestmark = pytest.mark.xdist_group("restore-artifacts")


@pytest.fixture(scope="module")
def direct(everything: Everything, tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """A store with the destination in its rows."""
    return make_direct(everything, tmp_path_factory.mktemp("direct"))


@pytest.fixture
def in_bucket(s3: S3Server, bucket: str, tmp_path: Path) -> Copy:
    """An empty store whose artifacts are to be in a bucket."""
    store = f"sqlite:///{tmp_path}/in-bucket.db"
    return Copy(store, f"s3://{bucket}/pre fix/mlflow", s3.environment)


@pytest.fixture
def on_disk(tmp_path: Path) -> Copy:
    """An empty store whose artifacts are to be in a folder."""
    return Copy(f"sqlite:///{tmp_path}/on-disk.db", str(tmp_path / "per%25cent on disk"))


def file_of(store: Copy) -> Path:
    return Path(store.uri.removeprefix("sqlite:///"))


def _migrate(direct: Direct, source: Copy, target: Copy) -> None:
    report = command(
        direct.place,
        *("migrate", "--to-backend-store-uri", target.uri),
        *("--to-artifacts-destination", target.destination),
        environment={**target.extra, **source.environment},
    )
    assert report["settings"]["MLFLOW_ARTIFACTS_DESTINATION"] == target.destination


def _restore(direct: Direct, source: Copy, target: Copy, at: Path, own: Path) -> None:
    places = {BACKUPS: str(at)}
    command(direct.place, "backup", "create", environment={**source.environment, **places})
    command(
        direct.place,
        *("restore", "latest", f"--artifact-map={own}={own}"),
        environment={**target.environment, **places},
    )


@pytest.mark.parametrize("first", ["migrate", "restore"])
def test_to_a_bucket_and_back(
    first: str,
    direct: Direct,
    everything: Everything,
    in_bucket: Copy,
    on_disk: Copy,
    s3: S3Server,
    tmp_path: Path,
) -> None:
    bucket = in_bucket.destination.split("/")[2]
    files, rows = files_of(direct.artifacts), locations(direct.place.store)
    assert {name for name in files if name.endswith(tuple(AWKWARD))}
    before = snapshot(direct.artifacts), direct.place.store.read_bytes()
    if first == "migrate":
        _migrate(direct, direct.copy, in_bucket)
    else:
        _restore(direct, direct.copy, in_bucket, tmp_path / "backups", everything.own)
    assert objects_of(s3, bucket, "pre fix/mlflow/") == files
    moved = locations(file_of(in_bucket))
    assert moved == sorted(
        row.replace(str(direct.artifacts), in_bucket.destination) for row in rows
    )
    assert_sound(file_of(in_bucket))
    if first == "migrate":
        _restore(direct, in_bucket, on_disk, tmp_path / "backups", everything.own)
    else:
        _migrate(direct, in_bucket, on_disk)
    assert files_of(Path(unquote(on_disk.destination))) == files
    assert not (Path(unquote(on_disk.destination)) / STRAY).exists()
    # In a row a path is written like a URI: MLflow decodes it.
    now = on_disk.destination  # MLflow decodes it, as it does with locations
    assert locations(file_of(on_disk)) == sorted(
        row.replace(str(direct.artifacts), now) for row in rows
    )
    assert (snapshot(direct.artifacts), direct.place.store.read_bytes()) == before


def test_a_server_serves_what_is_in_the_bucket_now(
    everything: Everything, in_bucket: Copy, tmp_path: Path
) -> None:
    """Rows that go through the server stay as they are, so that the API says the same."""
    command(
        everything.place,
        *("migrate", "--to-backend-store-uri", in_bucket.uri),
        *("--to-artifacts-destination", in_bucket.destination),
        environment={**in_bucket.extra, **everything.environment},
    )
    with serving(in_bucket, tmp_path / "server") as server:
        assert_same(everything.dump, dump_of(server))
        assert_goes_on(server)


def test_what_is_outside_of_the_destination_needs_a_map(
    direct: Direct, everything: Everything, on_disk: Copy, tmp_path: Path
) -> None:
    place, own, new = direct.place, everything.own, tmp_path / "own=new"
    there = {BACKUPS: str(tmp_path / "backups")}
    made = command(place, "backup", "create", environment={**direct.copy.environment, **there})
    files = files_of(own)
    environment = {**on_disk.environment, **there}
    report = command(place, "restore", "latest", environment=environment, code=3)
    (failed,) = [item for item in report["items"] if item["status"] == "failed"]
    assert failed["name"] == f"location:{own}"
    assert failed["facts"]["files"] == len(files)
    assert "--artifact-map" in failed["fix"]
    assert str(own) in locations(file_of(on_disk))
    mapped = Copy(f"sqlite:///{tmp_path}/mapped.db", str(tmp_path / "mapped artifacts"))
    command(
        place,
        *("restore", made["backup"], f"--artifact-map={own}={new}"),
        environment={**mapped.environment, **there},
    )
    assert files_of(new) == files
    found = locations(file_of(mapped))
    assert [row for row in found if row.startswith(str(own))] == []
    assert len([row for row in found if row.startswith(str(new))]) == len(
        [row for row in locations(direct.place.store) if row.startswith(str(own))]
    )


def test_a_map_of_one_run_moves_its_files_and_rows(
    direct: Direct, everything: Everything, on_disk: Copy, tmp_path: Path
) -> None:
    """Although they lie in the location of their experiment, which stays."""
    there = {BACKUPS: str(tmp_path / "backups")}
    command(direct.place, "backup", "create", environment={**direct.copy.environment, **there})
    with closing(sqlite3.connect(direct.place.store)) as connection:
        query = "SELECT artifact_uri FROM runs WHERE name = 'own'"
        ((old,),) = connection.execute(query).fetchall()
    new = tmp_path / "of this run"
    command(
        direct.place,
        *("restore", "latest", f"--artifact-map={old}={new}"),
        environment={**on_disk.environment, **there},
    )
    assert files_of(new) == files_of(Path(old))
    assert str(new) in locations(file_of(on_disk))


def test_equal_contents_are_stored_once_and_large_ones_alone(
    direct: Direct, tmp_path: Path
) -> None:
    place = direct.place
    environment = {**direct.copy.environment, BACKUPS: str(tmp_path / "backups")}
    made = command(place, "backup", "create", environment=environment)
    folder = tmp_path / "backups"
    manifest = json.loads((folder / made["backup"] / "manifest.json").read_text())
    digests = list(files_of(direct.artifacts).values())
    own = manifest["artifacts"]["files"] - len(digests)
    assert own > 0, "the experiment with a location of its own"
    assert manifest["artifacts"]["stored_files"] < len(set(digests)) + own
    sizes = sum(file.stat().st_size for file in folder.rglob("*.tar"))
    assert sizes < manifest["artifacts"]["size_bytes"] + 100_000


def test_a_bucket_has_backups(
    direct: Direct, everything: Everything, s3: S3Server, bucket: str, on_disk: Copy
) -> None:
    place, at = direct.place, f"s3://{bucket}/backups of mlflow"
    source = {**direct.copy.environment, **s3.environment, BACKUPS: at}
    first = command(place, "backup", "create", "--label=first", environment=source)
    second = command(place, "backup", "create", environment=source)
    assert second["scope"] == "incremental"
    artifacts = next(item for item in second["items"] if item["name"] == "artifacts")
    assert artifacts["facts"]["read_bytes"] == 0
    listed = command(place, "backup", "list", environment=source)
    assert [item["name"] for item in listed["items"]] == [first["backup"], second["backup"]]
    pruned = command(place, "backup", "prune", "--keep-last=1", environment=source)
    assert pruned["removed"] == 1
    command(place, "backup", "verify", "latest", "--drill", environment=source)
    own = everything.own
    command(
        place,
        *("restore", f"{at}/{second['backup']}", f"--artifact-map={own}={own}"),
        environment={**on_disk.environment, **s3.environment},
    )
    assert files_of(Path(unquote(on_disk.destination))) == files_of(direct.artifacts)
