"""A backup that somebody made up, with checksums that fit: nothing is written outside of its place.

Nothing of it may take memory or time without end either.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlflow_server.backup.names import INDEX
from tests.support.backup_forger import Forger
from tests.support.backup_place import Depot, files_of
from tests.support.gc_place import Made
from tests.support.programs import DESTINATION, STORE

pytestmark = pytest.mark.xdist_group("backup")
RUNS = "tables/backend/runs.jsonl.gz"


@pytest.fixture(scope="module")
def made_up(on_sqlite: Made, tmp_path_factory: pytest.TempPathFactory) -> Depot:
    depot = Depot.make(tmp_path_factory.mktemp("hostile") / "depot", on_sqlite)
    depot.create()
    return depot


@pytest.fixture
def forged(made_up: Depot) -> Iterator[tuple[Depot, Forger]]:
    """A backup to be changed."""
    depot = made_up
    copy = depot.place.root / "copy"
    shutil.copytree(depot.folder, copy)
    yield depot, Forger(depot.folder, depot.names()[0])
    shutil.rmtree(depot.folder)
    copy.rename(depot.folder)
    for name in ("restored", "outside"):
        shutil.rmtree(depot.place.root / name, ignore_errors=True)


def _refused(depot: Depot, *options: str, code: int = 65) -> str:
    """Restoring is refused, and nothing has changed."""
    before = files_of(depot.place.root)
    target = depot.target()
    ended = depot.run("restore", "latest", *options, environment=target)
    assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
    assert ended.stderr.count("Error:") == 1
    assert len(ended.stderr) < 2_000
    lock = Path(target[STORE].removeprefix("sqlite:///") + ".lock")
    after = files_of(depot.place.root)
    after.pop(str(lock.relative_to(depot.place.root)), None)
    assert after == before
    return ended.stderr


def _kept_back(depot: Depot, forger: Forger, locations: Sequence[str], told: str) -> None:
    """Restored but for files of these locations, and nothing is anywhere else."""
    entries = forger.index()
    for entry, location in zip(entries, locations, strict=False):
        entry["location"] = location
    forger.write_index(entries)
    forger.sign()
    target = depot.target()
    before = files_of(depot.place.root)
    ended = depot.run("restore", "latest", "--json", environment=target)
    assert ended.returncode == 3, (ended.returncode, ended.stdout, ended.stderr)
    failed = [item for item in ended.report["items"] if item["status"] == "failed"]
    assert len(failed) == len(locations)
    assert all(told in item["detail"] for item in failed), failed
    new = files_of(depot.place.root).keys() - before.keys()
    assert {path.partition("/")[0] for path in new} == {"restored"}
    assert {path.split("/")[1] for path in new} <= {"files", "store.db", "store.db.lock"}
    assert len(files_of(Path(target[DESTINATION]))) == len(entries) - len(locations)


# --- Paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "", ".", "..", "a/./b", "a/", "/", "a\0b", "../../store.db"],
)
def test_a_path_that_leads_elsewhere(forged: tuple[Depot, Forger], path: str) -> None:
    depot, forger = forged
    forger.change_index(lambda entry: entry.update(path=path))
    forger.sign()
    assert "leads elsewhere" in _refused(depot)
    assert depot.verified(forger.folder.name).problems


def test_locations_that_lead_out_of_the_destination(forged: tuple[Depot, Forger]) -> None:
    locations = [
        "mlflow-artifacts:/../outside",
        "mlflow-artifacts:/1/../../../outside",
        "mlflow-artifacts:/..",
        "mlflow-artifacts://host/../outside",
        "http://host/api/2.0/mlflow-artifacts/artifacts/../../outside",
        "mlflow-artifacts:/a\0b",
    ]
    _kept_back(*forged, locations, "leads elsewhere")


def test_locations_outside_of_the_destination(forged: tuple[Depot, Forger]) -> None:
    depot, _ = forged
    outside = depot.place.root / "outside"
    locations = [
        *(form.format(outside) for form in ("{}", "file://{}", "file:{}/../out", "{}/../out")),
        *("", "x/y", "s3://bucket/x", "ftp://x/y", "dbfs:/x", "//h/x"),
    ]
    _kept_back(*forged, locations, "outside of the destination")
    assert not outside.exists()


def test_a_folder_outside_is_written_to_when_somebody_says_so(
    forged: tuple[Depot, Forger],
) -> None:
    depot, forger = forged
    outside = depot.place.root / "outside"
    forger.change_index(lambda entry: entry.update(location="/somewhere/run"))
    forger.sign()
    depot.done("restore", "latest", "--artifact-map", f"/somewhere={outside}", **depot.target())
    assert len(files_of(outside / "run")) == 1


def test_the_map_does_not_lead_out_of_where_it_leads(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    outside = depot.place.root / "outside"
    forger.change_index(lambda entry: entry.update(location="/somewhere/../../x"))
    forger.sign()
    ended = depot.run(
        "restore", "latest", "--artifact-map", f"/somewhere={outside}", environment=depot.target()
    )
    assert ended.returncode == 3
    assert not (depot.place.root / "x").exists()
    assert not (depot.place.root.parent / "x").exists()


def test_a_link_at_the_destination_is_not_followed(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    outside = depot.place.root / "outside"
    outside.mkdir()
    target = depot.target()
    files = Path(target[DESTINATION])
    files.mkdir(parents=True)
    entry = forger.index()[0]
    first = entry["location"].partition(":/")[2].split("/")[0]
    (files / first).symlink_to(outside)
    ended = depot.run("restore", "latest", "--json", environment=target)
    # Either is right: to write nothing there, or not to begin at all.
    assert ended.returncode in (1, 3)
    assert files_of(outside) == {}


@pytest.mark.parametrize("name", ["../../../x.tar", "/etc/passwd", "x", "20261121T134115Z/1.tar"])
def test_a_pack_with_the_name_of_something_else(forged: tuple[Depot, Forger], name: str) -> None:
    depot, forger = forged
    forger.change_index(lambda entry: entry.update(pack=name))
    forger.manifest["packs"][0]["file"] = name
    forger.sign()
    assert "not the manifest of a backup" in _refused(depot)


def test_a_pack_that_is_not_in_the_manifest(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    forger.change_index(lambda entry: entry.update(pack="20200101T000000Z/00001.tar"))
    forger.sign()
    assert "is in no pack" in _refused(depot)


@pytest.mark.parametrize(
    "file",
    ["../../x", "/etc/passwd", "tables/../../x.jsonl.gz", "tables/backend/../x.jsonl.gz", "x", ""],
)
def test_a_table_in_a_file_that_is_somewhere_else(forged: tuple[Depot, Forger], file: str) -> None:
    depot, forger = forged
    forger.table("runs")["file"] = file
    forger.sign()
    assert "not the manifest of a backup" in _refused(depot)


@pytest.mark.parametrize("name", ["../../x", "x", "", "backend/../../x"])
def test_a_database_called_like_a_path(forged: tuple[Depot, Forger], name: str) -> None:
    depot, forger = forged
    databases = forger.manifest["databases"]
    databases[name] = databases["backend"]
    forger.sign()
    assert "not the manifest of a backup" in _refused(depot)
    depot.done("backup", "verify", "latest", "--drill", code=65)


# --- What does not fit ---------------------------------------------------------------------------


def test_contents_that_overlap(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    entries = forger.index()
    entries[0]["offset"] -= 10
    entries[0]["size_bytes"] += 20
    forger.write_index(entries)
    forger.sign()
    assert _refused(depot)


@pytest.mark.parametrize(
    ("offset", "size_bytes"),
    [(10**9, 1), (0, 10**6), (2**63 - 1, 2**63 - 1), (2**64, 1), (-1, 5), (1e300, 1), (True, 1)],
)
def test_a_content_outside_of_its_pack(
    forged: tuple[Depot, Forger], offset: Any, size_bytes: Any
) -> None:
    depot, forger = forged
    forger.change_index(lambda entry: entry.update(offset=offset, size_bytes=size_bytes))
    forger.sign()
    assert _refused(depot)


def test_many_files_of_one_content_that_no_disk_could_hold(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    pack = forger.manifest["packs"][0]["file"]
    size = 3 * 2**20
    content = (depot.folder / ".packs" / pack).read_bytes() + b"\0" * size
    forger.write_pack(pack, content)
    digest = hashlib.sha256(b"\0" * size).hexdigest()
    free = shutil.disk_usage(depot.place.root).free
    one = {**forger.index()[0], "offset": len(content) - size, "size_bytes": size, "sha256": digest}
    count = free // size + 2
    forger.write_index({**one, "path": f"file{number}"} for number in range(count))
    forger.sign()
    assert "free, the artifacts need" in _refused(depot, code=69)


def test_a_size_that_is_not_that_of_the_files(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    forger.manifest["artifacts"]["size_bytes"] = 1
    forger.sign()
    assert "other files than the manifest says" in _refused(depot)


def _zeros(size: int) -> bytes:
    """Compressed; one part after the other is allowed."""
    return gzip.compress(b"\0" * 2**26) * (size // 2**26)


@pytest.mark.parametrize("file", [RUNS, INDEX])
@pytest.mark.parametrize(
    "start",
    [b"", b'["', b"[" * 1_000_000 + b"\n", b"{" * 100_000 + b"\n"],
    ids=["zeros", "string", "lists", "objects"],
)
def test_gigabytes_of_zeros(forged: tuple[Depot, Forger], file: str, start: bytes) -> None:
    depot, forger = forged
    forger.write(file, gzip.compress(start) + _zeros(2**32))
    forger.sign()
    assert "is damaged" in _refused(depot)


@pytest.mark.parametrize("line", [b'["x"]\n', b"{}\n"])
def test_more_lines_than_the_manifest_says(forged: tuple[Depot, Forger], line: bytes) -> None:
    depot, forger = forged
    file = RUNS if line.startswith(b"[") else INDEX
    forger.write(file, gzip.compress(line * 3_000_000, 1))
    forger.sign()
    assert _refused(depot)


def _nested(_: Forger) -> bytes:
    return b'{"format":1,"id":' + b"[" * 1_000_000


def _huge_numbers(forger: Forger) -> bytes:
    return json.dumps(forger.manifest).replace('"rows": 9', f'"rows": 9{"0" * 5_000}').encode()


def _newer(forger: Forger) -> bytes:
    return json.dumps({**forger.manifest, "format": 2, "packs": "something new"}).encode()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: b"", "not the manifest"),
        (lambda _: b"[]", "not the manifest"),
        (lambda _: b"null", "not the manifest"),
        (lambda _: b"\xff\xfe", "not the manifest"),
        (_nested, "not the manifest"),
        (_huge_numbers, "not the manifest"),
        (_newer, "format 2, this release reads up to 1"),
    ],
)
def test_a_manifest_that_is_none(
    forged: tuple[Depot, Forger], make: Callable[[Forger], bytes], told: str
) -> None:
    depot, forger = forged
    forger.sign(make(forger))
    assert told in _refused(depot)
    assert depot.run("backup", "list").returncode == 3


def _twice(tables: list[dict[str, Any]]) -> None:
    tables.append(tables[-1])


def _column_twice(tables: list[dict[str, Any]]) -> None:
    tables[0]["columns"].append(tables[0]["columns"][0])


def _unknown_kind(tables: list[dict[str, Any]]) -> None:
    tables[0]["columns"][0]["kind"] = "pickle"


def _no_columns(tables: list[dict[str, Any]]) -> None:
    tables[0]["columns"] = []


def _key_of_others(tables: list[dict[str, Any]]) -> None:
    tables[0]["key"] = ["not there"]


def _negative(tables: list[dict[str, Any]]) -> None:
    tables[0]["rows"] = -1


def _version_table(tables: list[dict[str, Any]]) -> None:
    tables[0].update(name="alembic_version", known=False)


@pytest.mark.parametrize(
    "change",
    [_twice, _column_twice, _unknown_kind, _no_columns, _key_of_others, _negative, _version_table],
)
def test_tables_that_cannot_be(
    forged: tuple[Depot, Forger], change: Callable[[list[dict[str, Any]]], None]
) -> None:
    depot, forger = forged
    change(forger.tables)
    forger.sign()
    assert "not the manifest of a backup" in _refused(depot)


@pytest.mark.parametrize(
    "row",
    [
        {"run_uuid": ["nested"]},
        {"artifact_uri": [1]},
        {"start_time": 10**400},
        {"run_uuid": None},
        {"run_uuid": "\ud800"},
        {"artifact_uri": 5, "run_uuid": 7.5},
    ],
)
def test_values_that_cannot_be(forged: tuple[Depot, Forger], row: dict[str, Any]) -> None:
    depot, forger = forged
    names = [column["name"] for column in forger.table("runs")["columns"]]
    rows = forger.rows("runs")
    for name, value in row.items():
        rows[0][names.index(name)] = value
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    forger.write_rows("runs", [])
    forger.write(RUNS, gzip.compress(lines.encode()))
    _fit_checksum(forger, lines)
    forger.sign()
    target = depot.target()
    ended = depot.run("restore", "latest", environment=target)
    if row.keys() == {"artifact_uri", "run_uuid"}:
        return  # SQLite takes anything; there is no traceback
    assert ended.returncode == 65, (ended.returncode, ended.stderr)
    assert not Path(target[STORE].removeprefix("sqlite:///")).exists()


def _fit_checksum(forger: Forger, lines: str) -> None:
    entry = forger.table("runs")
    each = [
        int.from_bytes(hashlib.sha256(f"{line}\n".encode()).digest()[:16])
        for line in lines.split("\n")
        if line
    ]
    entry["rows"], entry["checksum"] = len(each), f"{sum(each) % 2**128:032x}"


@pytest.mark.parametrize("name", ['a"; DROP TABLE runs; --', "sqlite_sequence", "a\0b", ""])
def test_a_table_of_any_name(forged: tuple[Depot, Forger], name: str) -> None:
    depot, forger = forged
    entry = forger.table("jobs")
    entry.update(name=name, known=False)
    forger.sign()
    target = depot.target()
    ended = depot.run("restore", "latest", environment=target)
    assert ended.returncode in (0, 4, 65), (ended.returncode, ended.stderr)


def test_a_revision_of_a_newer_release(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    forger.manifest["databases"]["backend"]["revision"] = "ffffffffffff"
    forger.sign()
    told = _refused(depot, code=4)
    assert "ffffffffffff is not known to this release" in told


def test_a_backup_under_the_name_of_another_one(forged: tuple[Depot, Forger]) -> None:
    depot, forger = forged
    forger.folder.rename(depot.folder / "20300101T000000Z")
    assert f"is that of {forger.folder.name}" in _refused(depot)
