"""Only the folder of one entity is ever removed, whatever its location says."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_server.artifacts.removal import local
from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.local import TRASH
from mlflow_server.artifacts.removal.place import place_below, place_of
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import (
    BadInputError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import ArtifactUri, parse_artifacts_destination
from tests.support.places import WITHOUT_POWERS
from tests.support.programs import clean_environment

RUN = "0123456789abcdef" * 2
LOCATION = f"mlflow-artifacts:/1/{RUN}/artifacts"


def destination(text: str | Path) -> ArtifactUri:
    return parse_artifacts_destination(str(text), plugin_schemes=frozenset())


def lay(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")


def left(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def remove(root: Path, *locations: str) -> list[Freed | str]:
    removers = Removers(destination(root), {})
    try:
        return removers.remove([(location, RUN) for location in locations])
    finally:
        removers.close()


@pytest.fixture
def removers(tmp_path: Path) -> Iterator[Removers]:
    """Of a destination at `root`."""
    (tmp_path / "root").mkdir()
    found = Removers(destination(tmp_path / "root"), {})
    yield found
    found.close()


# --- Where it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        (f"mlflow-artifacts:/1/{RUN}/artifacts", ("1", RUN)),
        (f"mlflow-artifacts://host:80/1/{RUN}/artifacts", ("1", RUN)),
        (f"mlflow-artifacts:/workspaces/w/1/{RUN}/artifacts", ("workspaces", "w", "1", RUN)),
        (f"mlflow-artifacts:/a%20b//./{RUN}/artifacts", ("a b", RUN)),
        (f"/srv/own/{RUN}/artifacts", ("srv", "own", RUN)),
        (f"file:///srv/own%20place/{RUN}/artifacts", ("srv", "own place", RUN)),
        (f"s3://bucket/a/{RUN}/artifacts", ("a", RUN)),
        (f"s3://bucket/a%20b//{RUN}", ("a%20b", "", RUN)),
        (f"gs://bucket/a/{RUN}/artifacts", ("a", RUN)),
        (f"wasbs://c@a.blob.core.windows.net/a%20b/{RUN}", ("a%20b", RUN)),
        (f"abfss://f@a.dfs.core.windows.net/a%20b/{RUN}", ("a b", RUN)),
    ],
)
def test_the_place_is_the_folder_with_the_id(location: str, parts: tuple[str, ...]) -> None:
    place = place_of(location, RUN, destination("/dest"))
    assert place.parts == parts
    assert place.inside == (("artifacts",) if location.endswith("/artifacts") else ())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://b/x/y", ("x", "y", "1", RUN)),
        ("s3://b/x/y/", ("x", "y", "1", RUN)),
        ("s3://b/x//y", ("x", "", "y", "1", RUN)),
        ("s3://b", ("1", RUN)),
        ("abfss://b@a.dfs.core.windows.net/x%20y", ("x y", "1", RUN)),
        ("mlflow-artifacts:/x", ("x", "1", RUN)),
        ("/x/y", ("1", RUN)),
    ],
)
def test_the_prefix_of_the_destination_is_part_of_the_way(
    text: str, parts: tuple[str, ...]
) -> None:
    place = place_of(LOCATION, RUN, destination(text))
    assert (place.store, place.parts) == (destination(text), parts)


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
        f"mlflow-artifacts:/1%00/{RUN}/artifacts",
        f"relative/{RUN}/artifacts",
        f"/srv/../{RUN}",
        f"s3://bucket/../{RUN}",
        f"ftp://host/{RUN}",
        f"hdfs://host/{RUN}",
        f"nonsense://host/{RUN}",
        f"s3:///{RUN}",
    ],
)
def test_any_other_location_is_refused(location: str) -> None:
    with pytest.raises(BadInputError):
        place_of(location, RUN, destination("/dest"))


@pytest.mark.parametrize(
    "parts", [(), ("",), ("..",), ("1", ".."), ("1", "."), ("1/2",), ("1\0",), ("1", "")]
)
def test_the_destination_itself_is_no_orphan(removers: Removers, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadInputError):
        place_below(parts, destination("/dest"))
    (found,) = removers.remove_below([parts])
    assert isinstance(found, str)


# --- It goes, and nothing else -----------------------------------------------------------------


def test_a_folder_goes_whole_and_its_neighbours_stay(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/a", f"1/{RUN}/artifacts/deep/größe", "1/other/b")
    lay(tmp_path, f"1/{RUN}x/c")
    (tmp_path / f"1/{RUN}/artifacts/empty").mkdir()
    (tmp_path / f"1/{RUN}/artifacts/link").symlink_to(tmp_path / "1/other")
    (found,) = remove(tmp_path, LOCATION)
    assert isinstance(found, Freed)
    assert found.files == 3
    assert left(tmp_path) == ["1", f"1/{RUN}x", f"1/{RUN}x/c", "1/other", "1/other/b"]


def test_what_a_crash_left_in_the_trash_goes_with_the_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(name: str, parent: int) -> Freed:
        raise OSError(errno.EIO, "crashed", name)

    lay(tmp_path, f"1/{RUN}/artifacts/a", f"{TRASH}/of-another/b")
    with monkeypatch.context() as context:
        context.setattr(local, "purge", crash)
        (found,) = remove(tmp_path, LOCATION)
    assert isinstance(found, str)
    assert not (tmp_path / "1" / RUN).exists()
    assert remove(tmp_path, LOCATION) == [Freed(1, 5)]
    assert left(tmp_path / TRASH) == ["of-another", "of-another/b"]
    assert remove(tmp_path, LOCATION) == [Freed()]


def test_folders_of_the_same_name_do_not_meet_in_the_trash(
    tmp_path: Path, removers: Removers
) -> None:
    lay(tmp_path / "root", *(f"{number}/traces/{number}" for number in range(200)))
    folders = [(str(number), "traces") for number in range(200)]
    assert removers.remove_below(folders) == [Freed(1, 5)] * 200
    assert removers.remove_below(folders) == [Freed()] * 200


@pytest.mark.parametrize("link", ["1", f"1/{RUN}"])
def test_nothing_is_removed_or_counted_through_a_link(tmp_path: Path, link: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    lay(root, f"1/{RUN}/artifacts/a")
    (root / link).rename(elsewhere)
    (root / link).symlink_to(elsewhere)
    removers = Removers(destination(root), {})
    for found in (*removers.remove([(LOCATION, RUN)]), *removers.measure_below([("1", RUN)])):
        assert isinstance(found, str)
        assert "symbolic link" in found
    removers.remove_empty("mlflow-artifacts:/1", "1", [RUN])
    removers.close()
    assert [path.name for path in elsewhere.rglob("a")] == ["a"]
    assert (root / link).is_symlink()


@pytest.mark.parametrize("link", ["x", "x/artifacts"])
def test_nothing_is_removed_through_a_link_in_the_folder_of_the_id(
    tmp_path: Path, removers: Removers, link: str
) -> None:
    folder, elsewhere = tmp_path / "root/1" / RUN, tmp_path / "elsewhere"
    lay(folder, "x/artifacts/a", "beside")
    (folder / link).rename(elsewhere)
    (folder / link).symlink_to(elsewhere)
    asked = [(f"mlflow-artifacts:/1/{RUN}/x/artifacts", RUN)]
    for found in (*removers.measure(asked), *removers.remove(asked)):
        assert found == (f"{folder / link} is a symbolic link; what it leads to may be another's")
    assert [path.name for path in elsewhere.rglob("a")] == ["a"]
    assert (folder / link).is_symlink()


def test_the_folder_of_the_id_goes_when_nothing_else_is_in_it(
    tmp_path: Path, removers: Removers
) -> None:
    root = tmp_path / "root"
    for name in (f"1/{RUN}", f"2/{RUN}/artifacts", f"3/{RUN}/x"):
        (root / name).mkdir(parents=True)
    lay(root, f"4/{RUN}/x")
    asked = [(f"mlflow-artifacts:/{number}/{RUN}/artifacts", RUN) for number in (1, 2, 3, 4)]
    assert removers.remove(asked) == [Freed()] * 4
    kept = ["3", f"3/{RUN}", f"3/{RUN}/x", "4", f"4/{RUN}", f"4/{RUN}/x"]
    assert [name for name in left(root) if name != TRASH] == ["1", "2", *kept]


@pytest.mark.parametrize("is_beside_still_there", [True, False])
def test_what_a_crash_left_of_a_location_goes_with_the_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_beside_still_there: bool
) -> None:
    def crash(name: str, parent: int) -> Freed:
        raise OSError(errno.EIO, "crashed", name)

    lay(tmp_path, f"1/{RUN}/artifacts/a", f"1/{RUN}/beside")
    with monkeypatch.context() as context:
        context.setattr(local, "purge", crash)
        (found,) = remove(tmp_path, LOCATION)
    (aside,) = (tmp_path / TRASH).iterdir()
    assert found == f"{aside}: crashed"
    assert left(tmp_path / "1" / RUN) == ["beside"]
    if not is_beside_still_there:
        (tmp_path / "1" / RUN / "beside").unlink()
    assert remove(tmp_path, LOCATION) == [Freed(1, 5)]
    kept = [RUN, f"{RUN}/beside"] if is_beside_still_there else []
    assert left(tmp_path) == ["1", *(f"1/{name}" for name in kept)]


def test_a_link_in_the_place_of_the_trash_is_not_used(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    lay(root, f"1/{RUN}/artifacts/a")
    elsewhere.mkdir()
    (root / TRASH).symlink_to(elsewhere)
    assert remove(root, LOCATION) == [Freed(1, 5)]
    assert (left(root), left(elsewhere)) == ([TRASH, "1"], [])


def test_a_place_of_its_own_keeps_its_trash_beside_it(tmp_path: Path) -> None:
    root, own = tmp_path / "root", tmp_path / "own"
    lay(root, "x")
    lay(own, f"{RUN}/artifacts/a", "other")
    assert remove(root, f"{own}/{RUN}/artifacts") == [Freed(1, 5)]
    assert [path.name for path in own.iterdir()] == ["other"]


def test_one_bad_location_does_not_stop_the_others(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/a")
    bad, found, missing = remove(
        tmp_path, "mlflow-artifacts:/1", LOCATION, f"mlflow-artifacts:/2/{RUN}"
    )
    assert isinstance(bad, str)
    assert (found, missing) == (Freed(1, 5), Freed())


def test_empty_folders_go_from_the_inside_out(tmp_path: Path, removers: Removers) -> None:
    root = tmp_path / "root"
    for name in ("5/models", "5/traces", "6/models"):
        (root / name).mkdir(parents=True)
    lay(root, "6/traces/x")
    for number in "567":
        removers.remove_empty(f"mlflow-artifacts:/{number}", number, ["models", "traces", ".."])
    removers.remove_empty(str(root), "root-of-another", [])
    assert left(root) == ["6", "6/traces", "6/traces/x"]


# --- Trees of all kinds ------------------------------------------------------------------------


def make_deep(folder: Path, name: str, levels: int) -> None:
    """Folders in folders, with a file in the innermost; no path could name that."""
    folder.mkdir(parents=True)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.mark.parametrize(("name", "levels"), [("d", 5_000), ("d" * 200, 40)])
def test_trees_deeper_than_any_path(
    tmp_path: Path, removers: Removers, name: str, levels: int
) -> None:
    folder = tmp_path / "root" / "1" / RUN / "artifacts"
    make_deep(folder, name, levels)
    (measured,) = removers.measure([(LOCATION, RUN)])
    assert isinstance(measured, Found)
    assert measured.files == 1
    assert removers.remove([(LOCATION, RUN)]) == [Freed(1, 0)]
    assert not folder.parent.exists()


def test_names_and_files_of_all_kinds(tmp_path: Path, removers: Removers) -> None:
    folder = tmp_path / "root" / "1" / RUN / "artifacts"
    lay(folder, "größe 100%+#?.txt", "\n", "n" * 255, "-rf", "kept")
    (folder / os.fsdecode(b"\xff\xfe")).mkdir()
    (folder / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\x80")).write_text("12345")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket has to be short
        listener.bind("socket")
        os.chdir(here)
    os.link(folder / "kept", tmp_path / "other name")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "up").symlink_to("..")
    (measured,) = removers.measure([(LOCATION, RUN)])
    (freed,) = removers.remove([(LOCATION, RUN)])
    assert isinstance(measured, Found)
    assert isinstance(freed, Freed)
    assert measured.files == freed.files == 10
    assert measured.size_bytes == freed.size_bytes
    assert (tmp_path / "other name").read_text() == "12345"
    assert left(tmp_path / "root" / "1") == []


def test_a_file_in_the_place_of_a_folder_goes(tmp_path: Path, removers: Removers) -> None:
    lay(tmp_path / "root", f"1/{RUN}")
    (measured,) = removers.measure([(LOCATION, RUN)])
    assert isinstance(measured, Found)
    assert (measured.files, measured.size_bytes) == (1, 5)
    assert removers.remove([(LOCATION, RUN)]) == [Freed(1, 5)]


def test_measuring_tells_the_newest_and_changes_nothing(tmp_path: Path, removers: Removers) -> None:
    root = tmp_path / "root"
    lay(root, f"1/{RUN}/artifacts/a", f"1/{RUN}/b")
    os.utime(root / "1" / RUN / "artifacts/a", (1_000, 1_000))
    os.utime(root / "1" / RUN / "b", (900, 900))
    (root / "1/empty").mkdir()
    os.utime(root / "1/empty", (800, 800))
    before = left(root)
    folders = [("1", RUN), ("1", "empty"), ("2", "missing")]
    assert removers.measure_below(folders) == [Found(2, 10, 1_000), Found(0, 0, 800), Found()]
    assert left(root) == before


def test_folders_are_listed_but_for_the_trash_and_links(tmp_path: Path, removers: Removers) -> None:
    root = tmp_path / "root"
    lay(root, "1/x", "2/x", "file", f"{TRASH}/x/y", "2/größe/x")
    (root / "link").symlink_to(root / "1")
    assert sorted(removers.folders(())) == ["1", "2"]
    assert list(removers.folders(("2",))) == ["größe"]
    assert list(removers.folders(("3", "missing"))) == []
    for parts in (("..",), ("link",)):
        with pytest.raises(BadInputError):
            list(removers.folders(parts))


_MOUNTED = f"""
import sys
from pathlib import Path
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.uris import parse_artifacts_destination
root = Path(sys.argv[1])
for name in sys.argv[2:]:
    path = root / "1" / "{RUN}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("12345")
removers = Removers(parse_artifacts_destination(str(root), plugin_schemes=frozenset()), {{}})
print(removers.remove([("{LOCATION}", "{RUN}")])[0])
removers.close()
print(sorted(path.name for path in root.rglob("?")))
"""


@pytest.mark.parametrize(
    ("mounted", "words", "left_there"),
    [
        ("1", "Freed(files=1, size_bytes=5)", "['1'{}]"),
        (f"1/{RUN}", "another disk is mounted there", "['1'{}, 'b']"),
        (f"1/{RUN}/artifacts", "another disk is mounted there", "['1'{}, 'b']"),
    ],
)
@pytest.mark.parametrize("beside", [[], ["a"]], ids=["alone", "with something beside"])
def test_other_disks(
    tmp_path: Path, mounted: str, words: str, left_there: str, beside: list[str]
) -> None:
    """An experiment may be on one; what somebody has mounted inside of a run is not the run's."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounting is not allowed here")
    (tmp_path / mounted).mkdir(parents=True)
    script = 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"'
    command = [tmp_path / mounted, sys.executable, "-c", _MOUNTED, tmp_path, *beside, "artifacts/b"]
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *map(str, command)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert words in ended.stdout
    assert ended.stdout.rstrip().endswith(left_there.format(", 'a'" if beside else ""))


# --- What the system forbids -------------------------------------------------------------------


def without_powers(program: str, *arguments: str | Path) -> str:
    """The output of a program for which modes of files count, although it runs as root."""
    ended = subprocess.run(
        [*WITHOUT_POWERS, sys.executable, "-c", program, *map(str, arguments)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


_REMOVE = f"""
import sys
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.uris import parse_artifacts_destination
root = parse_artifacts_destination(sys.argv[1], plugin_schemes=frozenset())
removers = Removers(root, {{}})
print(removers.remove([("{LOCATION}", "{RUN}")])[0])
removers.close()
"""
_LOOK = """
import sys
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import OpsError
from mlflow_server.uris import parse_artifacts_destination
removers = Removers(parse_artifacts_destination(sys.argv[1], plugin_schemes=frozenset()), {})
for look in (removers.check, lambda: list(removers.folders(()))):
    try:
        print(look())
    except OpsError as err:
        print(int(err.exit_code), err.message)
print(removers.measure_below([("1",)])[0])
"""


@pytest.mark.parametrize("mode", [0o500, 0o400, 0o100, 0o000])
def test_folders_of_ours_that_forbid_it_are_removed_all_the_same(tmp_path: Path, mode: int) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/model/a", f"1/{RUN}/artifacts/b", "1/other")
    for name in ("artifacts/model", "artifacts", ""):
        (tmp_path / "1" / RUN / name).chmod(mode)
    assert without_powers(_REMOVE, tmp_path) == str(Freed(2, 10))
    assert left(tmp_path) == ["1", "1/other"]


@pytest.mark.parametrize("mode", [0o500, 0o400, 0o100, 0o000])
def test_a_location_of_ours_that_forbids_it_goes_and_what_is_beside_it_stays(
    tmp_path: Path, mode: int
) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/model/a", f"1/{RUN}/artifacts/b", f"1/{RUN}/beside")
    for name in ("artifacts/model", "artifacts"):
        (tmp_path / "1" / RUN / name).chmod(mode)
    assert without_powers(_REMOVE, tmp_path) == str(Freed(2, 10))
    assert left(tmp_path) == ["1", f"1/{RUN}", f"1/{RUN}/beside"]


def test_a_folder_of_somebody_else_is_told_and_tried_again(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/model/a", f"1/{RUN}/artifacts/b")
    folder = tmp_path / "1" / RUN / "artifacts/model"
    os.chown(folder, 12_345, 12_345)
    found = without_powers(_REMOVE, tmp_path)
    (path,) = tmp_path.rglob("model")
    assert found == f"{path}: Operation not permitted"
    assert path.relative_to(tmp_path).parts[0] == TRASH
    os.chown(path, os.geteuid(), os.getegid())
    assert without_powers(_REMOVE, tmp_path).startswith("Freed(files=1,")
    assert left(tmp_path) == ["1"]


def test_the_folder_that_a_place_is_in_is_not_changed(tmp_path: Path) -> None:
    lay(tmp_path, f"1/{RUN}/artifacts/a")
    (tmp_path / "1").chmod(0o500)
    found = without_powers(_REMOVE, tmp_path)
    assert found == f"{tmp_path}/1/{RUN}: Permission denied"
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o500


def test_a_destination_is_checked_without_writing(tmp_path: Path, removers: Removers) -> None:
    root = tmp_path / "root"
    assert not removers.check()
    lay(root, "x")
    assert removers.check()
    assert left(root) == ["x"]
    for path, is_there in ((root / "missing", False), (root / "x/below", False)):
        assert Removers(destination(path), {}).check() is is_there
    with pytest.raises(SettingsError, match="is a file"):
        Removers(destination(root / "x"), {}).check()
    with pytest.raises(UnavailableError, match="too long"):
        Removers(destination(root / ("x" * 300)), {}).check()


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (0o500, ["77 SETTING: ROOT: cannot write to ROOT", "['1']", "Found(files=1"]),
        (0o300, ["77 SETTING: ROOT: cannot write", "77 SETTING: ROOT: ROOT may not", "Found("]),
        (0o000, ["77 SETTING: ROOT: cannot write", "77 SETTING: ROOT: ROOT may not", "ROOT/1: P"]),
    ],
)
def test_missing_permissions_are_77(tmp_path: Path, mode: int, found: list[str]) -> None:
    lay(tmp_path / "root", "1/x")
    (tmp_path / "root").chmod(mode)
    lines = without_powers(_LOOK, tmp_path / "root").splitlines()
    for line, words in zip(lines, found, strict=True):
        shown = line.replace(f"{tmp_path}/root", "ROOT")
        assert shown.replace("MLFLOW_ARTIFACTS_DESTINATION", "SETTING").startswith(words)


def test_a_library_that_fails_unexpectedly_is_told_for_its_items_only(
    tmp_path: Path, removers: Removers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("hidden")

    lay(tmp_path / "root", f"1/{RUN}/a")
    monkeypatch.setattr(local, "_name_aside", fail)
    assert removers.remove([(LOCATION, RUN)]) == ["failed unexpectedly (KeyError)"]
    assert removers.remove_below([()]) != []


@pytest.mark.parametrize("uri", ["hdfs://host/x", "ftp://host/x"])
def test_a_kind_that_nothing_is_removed_from_is_78(uri: str) -> None:
    found = Removers(destination(uri), {})
    with pytest.raises(SettingsError, match="gc cannot remove artifacts from"):
        found.check()
    assert isinstance(found.remove([(LOCATION, RUN)])[0], str)
