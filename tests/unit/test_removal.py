"""Only the folder of one entity is ever removed, whatever its location says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.local import TRASH
from mlflow_server.artifacts.removal.place import place_of
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import BadInputError
from mlflow_server.uris import ArtifactUri, parse_artifacts_destination

RUN = "0123456789abcdef" * 2


def destination(text: str | Path) -> ArtifactUri:
    return parse_artifacts_destination(str(text), plugin_schemes=frozenset())


def lay(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")


def remove(root: Path, *locations: str) -> list[Freed | str]:
    removers = Removers(destination(root), {})
    try:
        return removers.remove([(location, RUN) for location in locations])
    finally:
        removers.close()


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        (f"mlflow-artifacts:/1/{RUN}/artifacts", ("1", RUN)),
        (f"mlflow-artifacts://host:80/1/{RUN}/artifacts", ("1", RUN)),
        (f"mlflow-artifacts:/workspaces/w/1/{RUN}/artifacts", ("workspaces", "w", "1", RUN)),
        (f"/srv/own/{RUN}/artifacts", ("srv", "own", RUN)),
        (f"file:///srv/own%20place/{RUN}/artifacts", ("srv", "own place", RUN)),
        (f"s3://bucket/a/{RUN}/artifacts", ("a", RUN)),
    ],
)
def test_the_place_is_the_folder_with_the_id(location: str, parts: tuple[str, ...]) -> None:
    assert place_of(location, RUN, destination("/dest")).parts == parts


def test_the_prefix_of_the_destination_is_part_of_the_way() -> None:
    place = place_of(f"mlflow-artifacts:/1/{RUN}/artifacts", RUN, destination("s3://b/x/y"))
    assert (place.store.bucket, place.parts) == ("b", ("x", "y", "1", RUN))


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/",
        "mlflow-artifacts:/",
        "mlflow-artifacts:/1/artifacts",
        f"mlflow-artifacts:/1/{RUN}x/artifacts",
        f"mlflow-artifacts:/1/../{RUN}/artifacts",
        f"mlflow-artifacts:/1/%2e%2e/{RUN}/artifacts",
        f"relative/{RUN}/artifacts",
        f"ftp://host/{RUN}",
        f"hdfs://host/{RUN}",
        f"nonsense://host/{RUN}",
        f"s3:///{RUN}",
    ],
)
def test_any_other_location_is_refused(location: str) -> None:
    with pytest.raises(BadInputError):
        place_of(location, RUN, destination("/dest"))


def test_a_folder_goes_whole_and_its_neighbours_stay(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/a", f"1/{RUN}/artifacts/deep/größe", "1/other/b")
    lay(tmp_path, f"1/{RUN}x/c")
    (tmp_path / f"1/{RUN}/empty").mkdir()
    (tmp_path / f"1/{RUN}/link").symlink_to(tmp_path / "1/other")
    (found,) = remove(tmp_path, f"mlflow-artifacts:/1/{RUN}/artifacts")
    assert isinstance(found, Freed)
    assert found.files == 3
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["1", f"1/{RUN}x", f"1/{RUN}x/c", "1/other", "1/other/b"]


def test_what_a_crash_left_in_the_trash_goes_with_the_repetition(tmp_path: Path) -> None:
    lay(tmp_path, f"{TRASH}/{RUN}/artifacts/a", f"{TRASH}/of-another/b")
    assert remove(tmp_path, f"mlflow-artifacts:/1/{RUN}/artifacts") == [Freed(1, 5)]
    assert (tmp_path / TRASH / "of-another/b").exists()
    assert remove(tmp_path, f"mlflow-artifacts:/1/{RUN}/artifacts") == [Freed()]


@pytest.mark.parametrize("link", ["1", f"1/{RUN}"])
def test_nothing_is_removed_through_a_link(tmp_path: Path, link: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    lay(root, f"1/{RUN}/artifacts/a")
    (root / link).rename(elsewhere)
    (root / link).symlink_to(elsewhere)
    (found,) = remove(root, f"mlflow-artifacts:/1/{RUN}/artifacts")
    assert isinstance(found, str)
    assert "symbolic link" in found
    assert [path.name for path in elsewhere.rglob("a")] == ["a"]


def test_very_deep_folders(tmp_path: Path) -> None:
    folder = tmp_path / "1" / RUN
    folder.mkdir(parents=True)
    for _ in range(900):
        folder /= "d"
        folder.mkdir()
    (folder / "file").write_text("12345")
    assert remove(tmp_path, f"mlflow-artifacts:/1/{RUN}/artifacts") == [Freed(1, 5)]
    assert not (tmp_path / "1" / RUN).exists()


def test_a_place_of_its_own_keeps_its_trash_beside_it(tmp_path: Path) -> None:
    root, own = tmp_path / "root", tmp_path / "own"
    lay(root, "x")
    lay(own, f"{RUN}/artifacts/a", "other")
    assert remove(root, f"{own}/{RUN}/artifacts") == [Freed(1, 5)]
    assert [path.name for path in own.iterdir()] == ["other"]


def test_one_bad_location_does_not_stop_the_others(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/a")
    good = f"mlflow-artifacts:/1/{RUN}/artifacts"
    bad, found = remove(tmp_path, "mlflow-artifacts:/1", good)
    assert isinstance(bad, str)
    assert found == Freed(1, 5)
