"""`ae5 build`: the archive of a release."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server import __version__
from mlflow_server.ae5.build import Release, make_release, read_release, write_release
from mlflow_server.ae5.contents import PROJECT, PROJECT_FILE, RECORD, make_archive, read_archive
from mlflow_server.ae5.customise import Customisation, customise
from mlflow_server.errors import BadInputError, OpsError, UsageError
from tests.support.programs import REPOSITORY

PLAIN = Customisation()
TEXT = (REPOSITORY / PROJECT_FILE).read_text()


def names_in(release: Release) -> list[str]:
    """The members of an archive."""
    with tarfile.open(fileobj=io.BytesIO(release.content)) as tar:
        return tar.getnames()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is released, with leftovers and with what is none of it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (PROJECT_FILE, "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(
        REPOSITORY / "mlflow_server",
        folder / "mlflow_server",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("mlflow_server/__pycache__/a.pyc", "mlflow_server/gc/.x.swp", "data/x.db", ".env"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_has_only_what_runs_below_one_folder(checkout: Path) -> None:
    release = make_release(checkout, PLAIN)
    names = names_in(release)
    assert names == sorted(names)
    assert {name.partition("/")[0] for name in names} == {PROJECT}
    assert {name.split("/")[1] for name in names} == {
        PROJECT_FILE, "README.md", "CHANGELOG.md", "LICENSE", "mlflow_server",
    }  # fmt: skip
    assert not [name for name in names if "/." in name or "pycache" in name or name.endswith(".db")]
    assert f"{PROJECT}/mlflow_server/upgrade/revisions.json" in names
    assert release.name == f"mlflow.tracking.server.{__version__}.tar.gz"
    assert len(release.content) <= 500_000


def test_the_same_files_make_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    wanted = Customisation({"B": "2", "A": "1"}, ("one==1", "two==2"))
    before = make_release(checkout, wanted)
    for path in checkout.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o777)
    (tmp_path / "elsewhere").mkdir()
    moved = checkout.rename(tmp_path / "elsewhere/other")
    assert make_release(moved, wanted).content == before.content
    (moved / "README.md").write_text("another one")
    assert make_release(moved, wanted).content != before.content


def test_its_checksum_and_its_contents_lie_beside_it(checkout: Path, tmp_path: Path) -> None:
    release = make_release(checkout, PLAIN)
    path = write_release(release, tmp_path / "out" / "deep")
    write_release(release, path.parent)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == release.sha256
    beside = {file.name: file.read_text() for file in path.parent.iterdir() if file != path}
    assert beside.keys() == {f"{path.name}.sha256", f"{path.name}.contents"}
    assert beside[f"{path.name}.sha256"] == f"{release.sha256}  {path.name}\n"
    listed = [line.split() for line in beside[f"{path.name}.contents"].splitlines()]
    assert {name: (digest, int(size)) for digest, size, name in listed} == {
        name: (hashlib.sha256(content).hexdigest(), len(content))
        for name, content in release.files.items()
    }


def test_an_archive_is_customised_again(checkout: Path, tmp_path: Path) -> None:
    first = make_release(checkout, Customisation({"A": "1", "B": "1"}, ("one==1",)))
    path = write_release(first, tmp_path)
    assert read_release(path) == first
    second = make_release(path, Customisation({"B": "2"}, ("two==2", "one==1")))
    assert dict(second.customisation.variables) == {"A": "1", "B": "2"}
    assert list(second.customisation.packages) == ["one==1", "two==2"]
    declared = yaml.safe_load(second.files[PROJECT_FILE])
    assert {name: declared["variables"][name] for name in "AB"} == {
        "A": {"default": "1"}, "B": {"default": "2"},
    }  # fmt: skip
    pip = declared["env_specs"]["default"]["packages"][-1]["pip"]
    assert {"one==1", "two==2"} <= set(pip)
    assert b'"B": "2"' in second.files[RECORD]
    # Nothing is changed: it is the same archive.
    assert make_release(path, PLAIN).content == first.content


def test_nothing_else_in_the_file_is_changed() -> None:
    wanted = Customisation(
        {"MLFLOW_TRACKING_GC_TTL": "7d0h0m0s", "NEW": "yes"}, ("mine==1", "conda-forge::nano")
    )
    changed = customise(TEXT, wanted)
    added = [line for line in changed.splitlines() if line not in TEXT.splitlines()]
    removed = [line for line in TEXT.splitlines() if line not in changed.splitlines()]
    assert removed == ["    default: 30d0h0m0s"]
    assert [line.strip() for line in added] == [
        'default: "7d0h0m0s"', "NEW:", 'default: "yes"', '- "conda-forge::nano"', '- "mine==1"',
    ]  # fmt: skip
    packages = yaml.safe_load(changed)["env_specs"]["default"]["packages"]
    assert "conda-forge::nano" in packages
    assert "mine==1" in packages[-1]["pip"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_value_is_what_was_typed(value: str) -> None:
    try:
        changed = customise(TEXT, Customisation({"NAME": value}))
    except UsageError:
        return  # credentials
    assert yaml.safe_load(changed)["variables"]["NAME"]["default"] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_TOKEN", "s3cret"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ("PGPASSWORD", "s3cret"),
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://ml:s3cret@db/ml"),
        ("ANY", "https://u:s3cret@host/"),
    ],
)
def test_secrets_are_refused_without_repeating_them(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        customise(TEXT, Customisation({name: value}))
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_store_without_a_password_is_no_secret() -> None:
    customise(TEXT, Customisation({"MLFLOW_BACKEND_STORE_URI": "postgresql://db/mlflow"}))


@pytest.mark.parametrize(
    "wanted",
    [
        Customisation({"1A": "x"}),
        Customisation({"A B": "x"}),
        Customisation({"CONDA_PREFIX": "x"}),
        Customisation({"EMPTY": ""}),
        Customisation(packages=("",)),
        Customisation(packages=("a\nb",)),
        Customisation(packages=("mlflow==2.0",)),
        Customisation(packages=("MLflow_Skinny==2.0",)),
        Customisation(packages=("other::python=3.9",)),
    ],
)
def test_what_cannot_be_put_in(wanted: Customisation) -> None:
    with pytest.raises(UsageError):
        customise(TEXT, wanted)


def test_a_package_that_is_there_already_is_not_put_in_twice() -> None:
    mlflow = next(line.strip("- ") for line in TEXT.splitlines() if "- mlflow==" in line)
    assert customise(TEXT, Customisation(packages=(mlflow,))) == TEXT


def test_links_are_refused(checkout: Path) -> None:
    (checkout / "mlflow_server/gc/link.py").symlink_to(checkout / "README.md")
    with pytest.raises(BadInputError, match=r"link\.py"):
        make_release(checkout, PLAIN)


def archive_of(*members: tuple[str, bytes]) -> bytes:
    """An archive with these members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in members:
            kind = tarfile.TarInfo(name)
            kind.size = len(data)
            if data == b"link":
                kind.type, kind.linkname, kind.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(kind, io.BytesIO(data))
    return content.getvalue()


GOOD = (("p/anaconda-project.yml", b"x"), ("p/mlflow_server/__init__.py", b'__version__ = "1"\n'))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        make_archive({"a": b"x"})[:40],
        make_archive({"a": b"x"}),
        archive_of(*GOOD, ("q/other", b"x")),
        archive_of(*GOOD, ("p/../x", b"x")),
        archive_of(*GOOD, ("p/link", b"link")),
        archive_of(*GOOD, ("p/release.json", b"{")),
        archive_of(*GOOD[:1], ("p/mlflow_server/__init__.py", b"no version")),
    ],
    ids=[
        "empty", "text", "cut", "other files", "two folders", "above", "link", "bad record",
        "no version",
    ],
)  # fmt: skip
def test_what_is_no_release(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    with pytest.raises(BadInputError):
        make_release(path, PLAIN)


def test_neither_a_checkout_nor_an_archive(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.tar.gz"):
        with pytest.raises(OpsError, match=str(path)):
            make_release(path, PLAIN)


def test_every_file_survives(checkout: Path, tmp_path: Path) -> None:
    release = make_release(checkout, PLAIN)
    path = write_release(release, tmp_path)
    assert read_archive(path) == release.files
