"""What is a local disk's own: links, names, permissions, writers that are killed."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_server.artifacts.files import ChangedError, File, LocalFiles, VanishedError
from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.errors import (
    BadInputError,
    OpsError,
    PermissionDeniedError,
    UnavailableError,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with something beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def files(root: Path) -> LocalFiles:
    """Of the folder."""
    return LocalFiles(root, "SUBJECT")


def walked(files: LocalFiles, below: str = "") -> tuple[list[str], dict[str, OpsError]]:
    """What a walk comes by, and what it leaves out."""
    skipped: dict[str, OpsError] = {}
    return [file.path for file in files.walk(below, on_skip=skipped.__setitem__)], skipped


def test_no_link_is_followed(root: Path, files: LocalFiles) -> None:
    (root / "a").write_text("a")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "file").symlink_to(root.parent / "outside/secret")
    (root / "nowhere").symlink_to("nothing")
    found, skipped = walked(files)
    assert found == ["a"]
    assert sorted(skipped) == ["file", "folder", "nowhere"]
    assert all(isinstance(why, BadInputError) for why in skipped.values())
    assert list(files.folders()) == []
    assert files.find("file") is None
    for path in ("file", "folder/secret"):
        with pytest.raises(BadInputError, match="symbolic link"):
            files.read(path)
    for work in (
        lambda: files.write("folder/x", b"x"),
        lambda: files.write("folder/new/x", b"x"),
        lambda: files.remove(["folder/secret"]),
        lambda: files.remove_tree("folder/secret"),
        lambda: list(files.walk("folder")),
    ):
        with pytest.raises(BadInputError, match="symbolic link"):
            work()
    assert [path.name for path in (root.parent / "outside").iterdir()] == ["secret"]


def test_a_link_in_the_place_of_a_file_is_replaced_or_removed(
    root: Path, files: LocalFiles
) -> None:
    for name in "abc":
        (root / name).symlink_to(root.parent / "outside/secret")
    files.write("a", b"mine")
    files.remove(["b"])
    files.remove_tree("c")
    assert [path.name for path in root.iterdir()] == ["a"]
    assert not (root / "a").is_symlink()
    assert (root.parent / "outside/secret").read_text() == "secret"


def test_the_root_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    files = LocalFiles(link, "SUBJECT")
    files.write("a/b", b"x")
    assert files.read("a/b") == b"x"
    assert walked(files) == (["a/b"], {})


def test_a_root_that_is_not_there_comes_with_the_first_file(root: Path) -> None:
    files = LocalFiles(root / "x/y", "SUBJECT")
    assert walked(files) == ([], {})
    assert list(files.folders()) == []
    files.remove(["a"])
    files.remove_tree("a")
    assert not (root / "x").exists()
    files.write("a", b"x", durable=True)
    assert (root / "x/y/a").read_bytes() == b"x"


def test_what_is_no_file_is_left_out(root: Path, files: LocalFiles) -> None:
    os.mkfifo(root / "pipe")
    here = Path.cwd()
    os.chdir(root)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)
    found, skipped = walked(files)
    assert (found, sorted(skipped)) == ([], ["pipe", "socket"])
    with pytest.raises(BadInputError, match="no file"):
        files.read("pipe")


def test_a_walk_goes_folder_by_folder_and_is_sorted(root: Path, files: LocalFiles) -> None:
    paths = ["a-b/x", "a.txt", "a/x", "a/y/z", "ab", "b/1", "b/10", "b/2", "c/d/e", "ü/x"]
    for path in paths:
        files.write(path, b"")
    folders = list(files.walk_folders())
    assert [(folder.path, folder.names) for folder in folders] == [
        ("", ["a.txt", "ab"]), ("a", ["x"]), ("a/y", ["z"]), ("a-b", ["x"]),
        ("b", ["1", "10", "2"]), ("c/d", ["e"]), ("ü", ["x"]),
    ]  # fmt: skip
    assert [file for folder in folders for file in folder.files] == list(files.walk())
    assert [folder.path for folder in files.walk_folders("a")] == ["a", "a/y"]


def test_a_listed_file_is_read_as_it_was_then(root: Path, files: LocalFiles) -> None:
    files.write("a/x", b"12345")
    ((path, (name,), (file,)),) = files.walk_folders()
    assert files.read_listed(path, name, file) == b"12345"
    for content in (b"123", b"1234567", b"54321"):
        (root / "a/x").write_bytes(content)
        with pytest.raises(ChangedError, match="was changed while it was read"):
            files.read_listed(path, name, file)
    (root / "a/x").unlink()
    with pytest.raises(VanishedError):
        files.read_listed(path, name, file)
    os.mkfifo(root / "a/x")
    with pytest.raises(ChangedError):
        files.read_listed(path, name, file)
    (root / "a/x").unlink()
    (root / "a/x").symlink_to("/etc/hostname")
    with pytest.raises(BadInputError, match="symbolic link"):
        files.read_listed(path, name, file)


def test_names_that_are_no_text(root: Path, files: LocalFiles) -> None:
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / os.fsdecode(b"caf\xe9/\xff")).write_text("x")
    ((path,), skipped) = walked(files)
    assert skipped == {}
    assert os.fsencode(path) == b"caf\xe9/\xff"
    assert files.read(path) == b"x"
    files.write(path, b"y")
    assert files.read(path) == b"y"
    with pytest.raises(VanishedError) as failure:
        files.read(path + "x")
    failure.value.message.encode()


def test_paths_longer_than_the_system_takes(root: Path, files: LocalFiles) -> None:
    path = "/".join(["d" * 200] * 40) + "/file"
    files.write(path, b"deep", durable=True)
    assert files.read(path) == b"deep"
    assert walked(files) == ([path], {})
    assert files.find(path) is not None
    files.remove([path])
    files.remove_tree("d" * 200)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("path", ["n" * 300, "n" * 300 + "/x", "ü" * 200])
def test_names_too_long_for_the_disk(root: Path, files: LocalFiles, path: str) -> None:
    with pytest.raises(BadInputError, match="too long"):
        files.write(path, b"x")
    assert list(root.rglob("*")) == []


def test_something_in_the_way(root: Path, files: LocalFiles) -> None:
    files.write("a/b", b"x")
    for path in ("a", "a/b/c", "a//c"):
        with pytest.raises(BadInputError):
            files.write(path, b"y")
    assert [path.name for path in root.rglob("*")] == ["a", "b"]


def test_a_surrogate_that_no_name_has(files: LocalFiles) -> None:
    for work in (lambda: files.write("\ud800", b"x"), lambda: files.find("\ud800/x")):
        with pytest.raises(BadInputError):
            work()


@pytest.fixture
def plain_root() -> Iterator[Path]:
    """A folder of a user who is not allowed everything, as whom the test goes on."""
    was = os.geteuid()
    # Nobody else comes to the folders of pytest.
    with tempfile.TemporaryDirectory() as folder:
        if was == 0:
            os.chown(folder, 65_534, 65_534)
            os.seteuid(65_534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(was)


def test_what_may_not_be_read(plain_root: Path) -> None:
    root, files = plain_root, LocalFiles(plain_root, "SUBJECT")
    files.write("a/b", b"x")
    files.write("c/d", b"x")
    files.write("e", b"x")
    (root / "a").chmod(0)
    (root / "e").chmod(0)
    try:
        found, skipped = walked(files)
        assert found == ["e", "c/d"]
        assert isinstance(skipped["a"], PermissionDeniedError)
        with pytest.raises(PermissionDeniedError):
            list(files.walk())
        for path in ("a/b", "e"):
            with pytest.raises(PermissionDeniedError):
                files.read(path)
        with pytest.raises(PermissionDeniedError):
            files.write("a/c", b"x")
        with pytest.raises(PermissionDeniedError):
            files.remove(["a/b"])
    finally:
        (root / "a").chmod(0o700)


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.ENOSPC, UnavailableError, "the disk is full: cannot write to /root/a"),
        (errno.EDQUOT, UnavailableError, "the disk is full"),
        (errno.EACCES, PermissionDeniedError, "may not be written"),
        (errno.EROFS, PermissionDeniedError, "may not be written"),
        (errno.ENAMETOOLONG, BadInputError, "too long"),
        (errno.EIO, UnavailableError, "Input/output error"),
    ],
)
def test_what_a_disk_answers(number: int, kind: type[OpsError], word: str) -> None:
    err = OSError(number, os.strerror(number))
    found = explain("SUBJECT", "/root/a/b", err, writes=True)
    assert type(found) is kind
    assert word in found.message
    assert found.message.startswith("SUBJECT: ")


def test_a_full_disk_leaves_nothing(
    root: Path, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a/b", b"before")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlflow_server.artifacts.files.local.os.write", full)
    for path in ("a/b", "a/c"):
        with pytest.raises(UnavailableError, match=f"the disk is full: cannot write to {root}/a"):
            files.write(path, b"after")
    assert [(path.name, path.read_bytes()) for path in (root / "a").iterdir()] == [("b", b"before")]


def test_what_a_killed_writer_has_left_is_not_there(root: Path, files: LocalFiles) -> None:
    def killed() -> Iterator[bytes]:
        yield b"x" * 100
        assert [path.stat().st_size for path in root.rglob("*") if path.is_file()] == [100]
        assert walked(files) == ([], {})
        yield b"y"

    files.write("a/b", killed())
    assert files.read("a/b") == b"x" * 100 + b"y"


def test_the_trash_of_gc_is_not_there(root: Path, files: LocalFiles) -> None:
    files.write(".gc-trash/a", b"x")
    files.write("a/.gc-trash/b", b"x")
    assert walked(files) == (["a/.gc-trash/b"], {})
    assert list(files.folders()) == ["a"]


# --- Who else writes ---------------------------------------------------------------------------


def renamed_over(root: Path, then: os.stat_result) -> None:
    """As copying tools do it: another file, of the same size and time."""
    (root / "new").write_bytes(b"54321")
    os.utime(root / "new", ns=(then.st_atime_ns, then.st_mtime_ns))
    (root / "new").rename(root / "a")


def test_a_file_renamed_over_has_another_stamp(root: Path, files: LocalFiles) -> None:
    files.write("a", b"12345")
    before, then = files.find("a"), (root / "a").stat()
    renamed_over(root, then)
    after = files.find("a")
    assert (root / "a").stat().st_mtime_ns == then.st_mtime_ns
    assert isinstance(before, File)
    assert isinstance(after, File)
    assert (before.path, before.size_bytes) == (after.path, after.size_bytes)
    assert before.stamp != after.stamp


def test_a_file_renamed_over_is_read_as_it_was(root: Path, files: LocalFiles) -> None:
    files.write("a", b"12345")
    with files.open("a") as reader:
        assert reader.read(1) == b"1"
        renamed_over(root, (root / "a").stat())
        assert reader.read() == b"2345"
    with files.open("a") as reader:
        (root / "a").unlink()
        assert reader.read() == b"54321"


@pytest.mark.parametrize("change", ["append", "truncate", "replace"])
def test_a_file_that_is_written_meanwhile_has_changed(
    root: Path, files: LocalFiles, change: str
) -> None:
    content = b"x" * 100_000
    files.write("a", content)
    os.utime(root / "a", ns=(0, 0))
    with files.open("a") as reader:
        assert reader.read(10) == content[:10]
        with (root / "a").open("r+b") as file:
            match change:
                case "append":
                    file.seek(0, os.SEEK_END)
                    file.write(b"y")
                case "truncate":
                    file.truncate(20)
                case "replace":
                    file.write(b"y" * 100_000)
        with pytest.raises(ChangedError):
            reader.read()


def test_a_reader_may_be_closed_twice(files: LocalFiles) -> None:
    files.write("a", b"x")
    reader = files.open("a")
    reader.close()
    reader.close()
