"""A backup beside an earlier one: what has not changed is neither read nor stored again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.standins.forwarder import Request, forwarder
from tests.support.backup_place import Depot, files_of
from tests.support.programs import DESTINATION
from tests.support.s3 import S3Server

pytestmark = pytest.mark.xdist_group("backup")


def _files(depot: Depot) -> list[Path]:
    return sorted(path for path in depot.artifacts.rglob("*") if path.is_file())


def _never_read(paths: list[Path]) -> None:
    """Times of access that a disk keeps only until the file is read (`relatime`)."""
    for path in paths:
        status = path.stat()
        os.utime(path, ns=(1, status.st_mtime_ns))


def _were_read(paths: list[Path]) -> list[Path]:
    return [path for path in paths if path.stat().st_atime_ns != 1]


def test_what_has_not_changed_is_not_read_nor_stored(depot: Depot) -> None:
    files = _files(depot)
    _never_read(files)
    first = depot.done("backup", "create", "--json").report
    if not _were_read(files):
        pytest.skip("this disk keeps no times of access")
    assert (first["scope"], first["base"]) == ("full", None)
    _never_read(files)  # which changes the entry, and with it the stamp
    depot.create()
    # Only a look would not tell: what could not be opened would be a failure.
    before = {path: path.stat().st_atime_ns for path in files}
    files[3].write_text("changed")
    new = files[0].with_name("new")
    new.write_text("new")
    third = depot.done("backup", "create", "--json").report
    facts = next(item["facts"] for item in third["items"] if item["name"] == "artifacts")
    assert (facts["files"], facts["stored_files"]) == (len(files) + 1, 2)
    assert facts["read_bytes"] == len("changed") + len("new")
    assert [path for path in files if path.stat().st_atime_ns != before[path]] in ([], [files[3]])
    depot.check_sound()


def test_a_changed_file_of_the_same_size_and_time_is_read(depot: Depot) -> None:
    path = _files(depot)[0]
    depot.create()
    status = path.stat()
    path.write_bytes(b"y" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = depot.done("backup", "create", "--json").report
    facts = next(item["facts"] for item in report["items"] if item["name"] == "artifacts")
    assert facts["stored_files"] == 1


def test_full_reads_and_stores_everything(depot: Depot) -> None:
    depot.create()
    report = depot.done("backup", "create", "--full", "--json").report
    facts = next(item["facts"] for item in report["items"] if item["name"] == "artifacts")
    assert report["scope"] == "full"
    assert facts["read_bytes"] == facts["bytes"]
    (pack,) = depot.shelf().manifest(report["backup"]).packs
    assert pack.file.startswith(report["backup"])


def test_each_can_be_restored_after_the_one_before_has_gone(depot: Depot) -> None:
    depot.create()
    states = {}
    for name in ("second", "third"):
        _files(depot)[0].with_name(name).write_text(name)
        made = depot.create("--label", name)
        states[made] = files_of(depot.artifacts)
    (last,) = (name for name in states if name.endswith("third"))
    pruned = depot.done("backup", "prune", "--keep-last", "1", "--json").report
    assert (pruned["removed"], pruned["packs"]) == (2, 0)
    assert depot.names() == [last]
    depot.check_sound()
    target = depot.target()
    depot.done("restore", last, **target)
    assert files_of(Path(target[DESTINATION])) == states[last]
    # What nobody needs any more goes with the next full one.
    depot.create("--full")
    pruned = depot.done("backup", "prune", "--keep-last", "1", "--json").report
    assert (pruned["removed"], pruned["packs"]) == (1, 3)
    assert depot.leftovers() == set()
    depot.check_sound()


@pytest.mark.parametrize("how", ["pack removed", "pack cut", "index damaged", "manifest damaged"])
def test_a_damaged_base_is_not_built_upon(depot: Depot, how: str) -> None:
    name = depot.create()
    pack = depot.folder / ".packs" / name / "00001.tar"
    if how == "pack removed":
        pack.unlink()
    elif how == "pack cut":
        os.truncate(pack, 1024)
    else:
        file = "artifacts.jsonl.gz" if how == "index damaged" else "manifest.json"
        path = depot.folder / name / file
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    report = depot.done("backup", "create", "--json").report
    assert report["warnings"]
    facts = next(item["facts"] for item in report["items"] if item["name"] == "artifacts")
    assert facts["read_bytes"] == facts["bytes"] > 0
    assert depot.verified(report["backup"]).problems == []
    packs = depot.shelf().manifest(report["backup"]).packs
    assert [entry.file for entry in packs] == [f"{report['backup']}/00001.tar"]


def test_a_new_backup_is_never_called_like_one_whose_pack_is_needed(depot: Depot) -> None:
    first = depot.create()
    second = depot.create()
    (depot.folder / first).rename(depot.folder.with_name("gone"))
    assert depot.shelf().taken_names() >= {first, second}


def test_pruning_does_what_it_said(depot: Depot) -> None:
    for number in range(4):
        _files(depot)[0].with_name(f"new-{number}").write_text(str(number))
        depot.create(*(["--full"] if number == 2 else []))
    before = files_of(depot.folder)
    options = ("backup", "prune", "--keep-last", "2", "--json")
    planned = depot.done(*options, "--dry-run").report
    assert files_of(depot.folder) == before
    done = depot.done(*options).report
    for report in (planned, done):
        report["items"] = [(item["name"], item["facts"]) for item in report["items"]]
    wanted = ("items", "removed", "kept", "packs", "freed_bytes", "place")
    assert {key: planned[key] for key in wanted} == {key: done[key] for key in wanted}
    assert (done["removed"], done["packs"]) == (2, 2)
    gone = before.keys() - files_of(depot.folder).keys()
    sizes = sum(1 for path in gone if path.startswith(".packs"))
    assert sizes == done["packs"]
    depot.check_sound()
    assert depot.done(*options).report["removed"] == 0


def test_at_least_so_many_stay(depot: Depot) -> None:
    for _ in range(3):
        depot.create()
    options = ("backup", "prune", "--keep-daily", "1", "--keep-at-least", "2", "--json")
    assert depot.done(*options).report["kept"] == 2
    assert depot.run("backup", "prune").returncode == 2
    assert len(depot.names()) == 2


def test_a_store_of_s3_is_not_asked_for_what_has_not_changed(
    depot: Depot, s3: S3Server, bucket: str
) -> None:
    with s3.administer() as client:
        for path in _files(depot):
            key = f"files/{path.relative_to(depot.artifacts)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    read: list[str] = []

    def watch(request: Request) -> None:
        if request.method == "GET" and "list-type" not in request.path:
            read.append(request.path)

    with forwarder(int(s3.endpoint.rpartition(":")[2]), watch) as front:
        extra = {
            **s3.environment,
            "MLFLOW_S3_ENDPOINT_URL": front.url,
            DESTINATION: f"s3://{bucket}/files",
        }
        remote = replace(depot, extra=extra)
        remote.create()
        assert len([path for path in read if "/files/" in path]) == 22
        read.clear()
        key = f"files/{_files(depot)[0].relative_to(depot.artifacts)}"
        with s3.administer() as client:
            client.put_object(Bucket=bucket, Key=key, Body=b"other")
        remote.create()
        assert len([path for path in read if "/files/" in path]) == 1
    remote.check_sound()


def test_files_that_are_alike_are_stored_once(depot: Depot) -> None:
    for number in range(50):
        _files(depot)[0].with_name(f"same-{number}").write_bytes(b"same" * 1_000)
    name = depot.create()
    (pack,) = depot.shelf().manifest(name).packs
    assert pack.size_bytes < 20_000
    target = depot.target()
    depot.done("restore", name, **target)
    assert files_of(Path(target[DESTINATION])) == files_of(depot.artifacts)


def test_replacing_writes_files_of_the_same_size_anew(depot: Depot) -> None:
    name = depot.create()
    whole = files_of(depot.artifacts)
    first = _files(depot)[0]
    first.write_bytes(b"z" * first.stat().st_size)
    with sqlite3.connect(depot.place.store) as connection:
        connection.execute("DELETE FROM metrics")
    connection.close()
    steps = depot.run("restore", name, "--replace", "--yes", "--dry-run").steps
    ended = depot.run("restore", name, "--replace", "--yes", kill_at=len(steps) + 200)
    assert ended.returncode == -9
    depot.done("restore", name, "--replace", "--yes")
    assert files_of(depot.artifacts) == whole
    shutil.rmtree(depot.folder)
