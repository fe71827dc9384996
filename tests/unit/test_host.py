"""Facts about this machine, from made-up files where there are no such machines here."""

import os
from pathlib import Path

import pytest

from mlflow_server.host import file_system_of, usable_cores


def test_there_is_at_least_one_core_and_no_more_than_affinity_allows() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_counts_only_the_cores_this_process_is_bound_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A mount table in which the folders of `tmp_path` lie on different file systems."""
    for name in ("plain", "nfs", "nfs/local", "with space", "over", "sshfs"):
        (tmp_path / name).mkdir(parents=True)
    lines = [
        "overlay / overlay rw 0 0",
        f"server:/export {tmp_path}/nfs nfs4 rw 0 0",
        f"/dev/sdb1 {tmp_path}/nfs/local ext4 rw 0 0",
        f"//server/share {tmp_path}/with\\040space cifs rw 0 0",
        f"tmpfs {tmp_path}/over tmpfs rw 0 0",
        f"server:/x {tmp_path}/over nfs rw 0 0",
        f"u@host:/ {tmp_path}/sshfs fuse.sshfs rw 0 0",
        "short line",
        "",
    ]
    table = tmp_path / "mounts"
    table.write_text("\n".join(lines), "utf-8")
    return table


@pytest.mark.parametrize(
    ("place", "kind", "is_network"),
    [
        ("plain/my.db", "overlay", False),
        ("nfs/deep/er/my.db", "nfs4", True),
        ("nfs/local/my.db", "ext4", False),
        ("nfs-beside/my.db", "overlay", False),
        ("with space/my.db", "cifs", True),
        ("over/my.db", "nfs", True),
        ("sshfs/my.db", "fuse.sshfs", True),
    ],
)
def test_finds_the_file_system_of_a_path_that_need_not_exist(
    tmp_path: Path, mounts: Path, place: str, kind: str, is_network: bool
) -> None:
    found = file_system_of(tmp_path / place, mounts)
    assert (found.kind, found.is_network) == (kind, is_network)


def test_follows_links(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "plain/link").symlink_to(tmp_path / "nfs")
    assert file_system_of(tmp_path / "plain/link/my.db", mounts).is_network


def test_a_relative_path_counts_from_the_current_folder(
    tmp_path: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "nfs")
    assert file_system_of(Path("my.db"), mounts).kind == "nfs4"


def test_without_a_mount_table_nothing_is_known(tmp_path: Path) -> None:
    found = file_system_of(tmp_path, tmp_path / "missing")
    assert (found.kind, found.is_network) == ("", False)


def test_this_machine_has_a_file_system() -> None:
    assert file_system_of(Path("/proc")).kind == "proc"
