"""A backup of which one byte is another one, or one file, is found to be damaged."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_server.backup.names import INDEX, MANIFEST, SUMS
from tests.support.backup_place import Depot, files_of
from tests.support.gc_place import Made
from tests.support.places import snapshot

SEED = int(os.environ.get("TRACKING_SERVER_TEST_SEED", random.SystemRandom().randrange(2**32)))
pytestmark = pytest.mark.xdist_group("backup")

# Of one table with rows, of every kind of file.
KINDS = [MANIFEST, SUMS, INDEX, "tables/backend/runs.jsonl.gz", "tables/backend/jobs.jsonl.gz"]
PACK, OLD_PACK = "pack", "pack of the backup before"


@pytest.fixture(scope="module")
def kept(on_sqlite: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Depot, str]:
    """An incremental backup that needs a pack of the one before it."""
    depot = Depot.make(tmp_path_factory.mktemp("damage") / "depot", on_sqlite)
    depot.create("--label", "first")
    (depot.artifacts / depot.ids["stays"] / depot.ids["active"] / "artifacts/new").write_text("new")
    return depot, depot.create("--label", "second")


@pytest.fixture
def damaged(kept: tuple[Depot, str]) -> Iterator[tuple[Depot, str]]:
    """The same, which the test may damage."""
    depot, name = kept
    copy = depot.place.root / "copy"
    shutil.copytree(depot.folder, copy)
    yield depot, name
    shutil.rmtree(depot.folder)
    copy.rename(depot.folder)


def _path(depot: Depot, name: str, kind: str) -> Path:
    if kind == PACK:
        return depot.folder / ".packs" / name / "00001.tar"
    if kind == OLD_PACK:
        return next((depot.folder / ".packs").glob("*-first/00001.tar"))
    return depot.folder / name / kind


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("kind", [*KINDS, PACK, OLD_PACK])
def test_a_flipped_byte_is_found_wherever_it_is(damaged: tuple[Depot, str], kind: str) -> None:
    depot, name = damaged
    path = _path(depot, name, kind)
    whole = path.read_bytes()
    print(f"TRACKING_SERVER_TEST_SEED={SEED}")
    chance = random.Random(SEED)  # noqa: S311
    # The header of the first member and what is around its content, the end, and anywhere.
    places = {0, 1, 100, 124, 148, 156, 257, 511, 512, 600, 1023, 1024, len(whole) - 1}
    places |= {len(whole) - 700} | {chance.randrange(len(whole)) for _ in range(12)}
    for at in sorted(place for place in places if 0 <= place < len(whole)):
        _flip(path, at)
        problems = depot.verified(name).problems
        assert problems, f"byte {at}"
        if kind != SUMS:
            # A flipped byte of a checksum says of the file that it is another one.
            assert path.name in " ".join(problems[0]), (at, problems)
        path.write_bytes(whole)
    assert depot.verified(name).problems == []


@pytest.mark.parametrize("kind", [*KINDS, PACK, OLD_PACK])
@pytest.mark.parametrize("how", ["first", "last", "middle", "added", "zero added", "emptied"])
def test_bytes_removed_or_added_are_found(damaged: tuple[Depot, str], kind: str, how: str) -> None:
    depot, name = damaged
    path = _path(depot, name, kind)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "first": whole[1:],
            "last": whole[:-1],
            "middle": whole[:middle] + whole[middle + 1 :],
            "added": whole + b"x",
            "zero added": whole + b"\0",
            "emptied": b"",
        }[how]
    )
    problems = depot.verified(name).problems
    assert problems
    assert path.name in " ".join(problems[0]) or kind == SUMS
    # What a quick look promises: everything but the content of packs.
    assert depot.verified(name, is_quick=True).problems or how == "middle"


@pytest.mark.parametrize("kind", [*KINDS, PACK, OLD_PACK])
@pytest.mark.parametrize("how", ["removed", "renamed", "a folder", "a link"])
def test_a_file_that_is_not_there_is_found(damaged: tuple[Depot, str], kind: str, how: str) -> None:
    depot, name = damaged
    path = _path(depot, name, kind)
    aside = path.with_name("aside")
    path.rename(aside)
    if how == "removed":
        aside.unlink()
    elif how == "a folder":
        path.mkdir()
    elif how == "a link":
        path.symlink_to(aside)
    for is_quick in (False, True):
        problems = depot.verified(name, is_quick=is_quick).problems
        assert problems
        assert any(path.name in " ".join(problem) for problem in problems)


@pytest.mark.parametrize("path", ["more", "tables/more.jsonl.gz", "tables/backend/more"])
def test_a_file_that_was_added_is_found(damaged: tuple[Depot, str], path: str) -> None:
    depot, name = damaged
    (depot.folder / name / path).write_text("more")
    assert depot.verified(name).problems == [(path, "does not belong to the backup")]
    (depot.folder / name / path).unlink()
    (depot.folder / name / path).symlink_to("/etc/passwd")
    assert depot.verified(name).problems == [(path, "does not belong to the backup")]


def test_two_packs_in_each_others_place_are_found(damaged: tuple[Depot, str]) -> None:
    depot, name = damaged
    one, other = _path(depot, name, PACK), _path(depot, name, OLD_PACK)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert len(depot.verified(name).problems) == 2


def test_a_quick_look_reads_no_pack(damaged: tuple[Depot, str]) -> None:
    depot, name = damaged
    _flip(_path(depot, name, PACK), 600)
    quick = depot.verified(name, is_quick=True)
    assert (quick.problems, quick.read_bytes) == ([], 0)


def _drop_sums(depot: Depot, name: str) -> None:
    _path(depot, name, SUMS).unlink()


def _break_pack(depot: Depot, name: str) -> None:
    _flip(_path(depot, name, OLD_PACK), 515)


def _break_table(depot: Depot, name: str) -> None:
    _flip(_path(depot, name, KINDS[3]), 30)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop_sums, "SHA256SUMS: is missing"),
        (_break_pack, "00001.tar: is damaged"),
        (_break_table, "runs.jsonl.gz: is damaged"),
    ],
)
def test_the_commands_refuse_and_change_nothing(
    damaged: tuple[Depot, str], damage: Callable[[Depot, str], None], told: str
) -> None:
    depot, name = damaged
    damage(depot, name)
    verified = depot.done("backup", "verify", name, code=65)
    assert told in verified.stdout
    before = snapshot(depot.place.root)
    target = depot.target()
    restored = depot.run("restore", name, environment=target)
    assert restored.returncode == 65
    assert told in restored.stderr
    assert "nothing was changed" in restored.stderr or "SHA256SUMS" in told
    assert snapshot(depot.place.root) == before


def test_a_restore_without_artifacts_does_not_need_their_packs(
    damaged: tuple[Depot, str], tmp_path: Path
) -> None:
    depot, name = damaged
    _break_pack(depot, name)
    target = {**depot.target(), "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/store.db"}
    depot.done("restore", name, "--no-artifacts", **target)
    assert not Path(target["MLFLOW_ARTIFACTS_DESTINATION"]).exists()


def test_a_damaged_one_is_listed_and_named(damaged: tuple[Depot, str]) -> None:
    depot, name = damaged
    _drop_sums(depot, name)
    listed = depot.done("backup", "list", "--json", code=3).report
    assert [item["name"] for item in listed["items"] if item["status"] == "failed"] == [name]
    before = files_of(depot.folder)
    # Nobody can tell what it needs: every pack stays.
    pruned = depot.done("backup", "prune", "--keep-last", "1", "--json", code=3).report
    assert name in [item["name"] for item in pruned["items"] if item["status"] == "failed"]
    assert pruned["packs"] == 0
    gone = before.keys() - files_of(depot.folder).keys()
    assert not [path for path in gone if path.startswith(".packs")]


def test_another_backup_can_be_made_beside_a_damaged_one(damaged: tuple[Depot, str]) -> None:
    depot, name = damaged
    _flip(_path(depot, name, MANIFEST), 30)
    ended = depot.done("backup", "create", "--json")
    assert ended.report["base"].endswith("-first")
    assert any(name in warning for warning in ended.report["warnings"])
    assert depot.verified(ended.report["backup"]).problems == []
