"""`anaconda-project.yml` against the platform's rules, and its archive against what runs.

Source of the rules: anaconda-project 0.13 (project.py, env_var requirements, archiver.py). Set
ANACONDA_PROJECT_PYTHON to a Python that imports that package to ask the package itself as well.
"""

import fnmatch
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT_FILE = ROOT / "anaconda-project.yml"
LOCKS = (ROOT / "requirements" / "runtime.txt", ROOT / "requirements" / "test.txt")

PROJECT_FIELDS = {"name", "description", "icon", "variables", "downloads", "services", "env_specs",
                  "commands", "packages", "channels", "platforms"}  # fmt: skip
COMMAND_FIELDS = {"description", "unix", "env_spec", "supports_http_options", "variables"}
ENV_SPEC_FIELDS = {"description", "packages", "channels", "platforms", "inherit_from", "variables"}
VARIABLE_FIELDS = {"description", "default"}
# The platform keeps these in a keyring; a default in the file would still be plain text.
SECRET_ENDINGS = ("_PASSWORD", "_SECRET", "_SECRET_KEY", "_TOKEN")
RESERVED_VARIABLES = {"CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_ENV_PATH"}


class UniqueKeys(yaml.SafeLoader):
    """The platform refuses a file with a key twice; PyYAML takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded = yaml.load(PROJECT_FILE.read_text(encoding="utf-8"), UniqueKeys)  # noqa: S506 - is safe
    assert isinstance(loaded, dict)
    return loaded


def pins_in(project: dict[str, Any], env_spec: str) -> list[str]:
    (section,) = [p for p in project["env_specs"][env_spec]["packages"] if isinstance(p, dict)]
    assert set(section) == {"pip"}
    pins: list[str] = section["pip"]
    return pins


def conda_packages(project: dict[str, Any]) -> Iterator[str]:
    for env_spec in project["env_specs"].values():
        yield from (package for package in env_spec["packages"] if isinstance(package, str))


def locked_versions() -> set[str]:
    """`name==version` of the runtime lock, whatever the marker."""
    found = re.findall(r"^([a-z0-9][^ \\]*==[^ \\]+)", LOCKS[0].read_text("utf-8"), re.MULTILINE)
    return set(found)


def test_has_no_field_the_platform_does_not_know(project: dict[str, Any]) -> None:
    assert set(project) <= PROJECT_FIELDS
    for command in project["commands"].values():
        assert set(command) <= COMMAND_FIELDS
    for env_spec in project["env_specs"].values():
        assert set(env_spec) <= ENV_SPEC_FIELDS
    for variable in project["variables"].values():
        assert set(variable) <= VARIABLE_FIELDS


def test_names_and_descriptions_are_text(project: dict[str, Any]) -> None:
    # The name becomes the archive's only top folder, and part of ids that are split at these.
    assert not set(project["name"]) & set(":/,|&=<>!*?[ ")
    described = [project, *project["commands"].values(), *project["env_specs"].values()]
    described += project["variables"].values()
    for part in described:
        assert isinstance(part["description"], str)
        assert part["description"].strip()


def test_first_command_is_the_server(project: dict[str, Any]) -> None:
    # A deployment without --command takes the first, unless one is called "default".
    assert next(iter(project["commands"])) == "TrackingServer"
    assert "default" not in project["commands"]


def test_commands_are_the_documented_ones(project: dict[str, Any]) -> None:
    ours = {name: command["unix"].split()[4:] for name, command in project["commands"].items()}
    assert ours == {
        "TrackingServer": ["serve"],
        "Doctor": ["doctor"],
        "GarbageCollection": ["gc"],
        "DatabaseUpgrade": ["upgrade"],
        "Backup": ["backup", "create"],
        "Restore": ["restore"],
        "Migrate": ["migrate"],
    }
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in ours if f"`{name}`" not in readme] == []


def test_commands_are_one_exec_each(project: dict[str, Any]) -> None:
    for name, command in project["commands"].items():
        line = command["unix"]
        # With more than a simple command a shell stays in between: it takes the signals, and the
        # platform's flags, which are appended, reach its last part only.
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
        assert words[:1] == ["exec"], name
        assert not [word for word in words if set(word) & set("();<>|&`$\n#{}*?~!")], name
        assert line.startswith("exec python -m mlflow_server "), name


def test_commands_take_the_platforms_flags(project: dict[str, Any]) -> None:
    for name, command in project["commands"].items():
        # A quoted "true" is a fatal problem. Without it the line would go through jinja2.
        assert command["supports_http_options"] is True, name


def test_commands_run_in_an_env_spec_that_exists(project: dict[str, Any]) -> None:
    for command in project["commands"].values():
        assert command["env_spec"] in project["env_specs"]


def test_variables_have_usable_defaults(project: dict[str, Any]) -> None:
    for name, variable in project["variables"].items():
        assert name not in RESERVED_VARIABLES
        # A boolean is a fatal problem, none or an empty one makes the variable required.
        default = variable["default"]
        assert not isinstance(default, bool), name
        assert isinstance(default, str | int | float), name
        assert str(default).strip(), name


def test_variables_hold_no_secret(project: dict[str, Any]) -> None:
    for name, variable in project["variables"].items():
        assert not name.endswith(SECRET_ENDINGS)
        assert "@" not in str(variable["default"]), f"{name}: credentials in a URI?"


def test_variables_are_settings_with_the_same_default(project: dict[str, Any]) -> None:
    from mlflow_server.settings.model import iter_definitions

    known = {definition.setting.name: definition.default_text for definition in iter_definitions()}
    assert {n: v["default"] for n, v in project["variables"].items()} == {
        name: known.get(name) for name in project["variables"]
    }


def test_conda_packages_name_their_channel(project: dict[str, Any]) -> None:
    packages = list(conda_packages(project))
    assert packages
    for package in packages:
        # With a single colon conda reads a namespace and pins nothing.
        channel, separator, spec = package.partition("::")
        assert separator
        assert channel in project["channels"]
        assert re.fullmatch(r"[a-z0-9_-]+(=[0-9.]+)?", spec)


def test_conda_brings_the_python_that_is_locked(project: dict[str, Any]) -> None:
    for env_spec in project["env_specs"].values():
        assert "conda-forge::python=3.11" in env_spec["packages"]


def test_platforms_are_conda_names(project: dict[str, Any]) -> None:
    platforms = list(project["platforms"])
    for env_spec in project["env_specs"].values():
        platforms += env_spec.get("platforms", [])
    assert platforms == ["linux-64"]


def test_env_specs_are_the_documented_ones(project: dict[str, Any]) -> None:
    assert list(project["env_specs"]) == ["default", "minimum"]


@pytest.mark.parametrize("env_spec", ["default", "minimum"])
def test_pins_are_locked_versions(project: dict[str, Any], env_spec: str) -> None:
    pins = pins_in(project, env_spec)
    assert len(pins) == len(set(pins))
    assert set(pins) <= locked_versions()
    assert {"mlflow", "uvloop", "gunicorn"} <= {pin.partition("==")[0] for pin in pins}


def test_default_leaves_out_only_other_platforms_and_the_build_backend(
    project: dict[str, Any],
) -> None:
    names = {pin.partition("==")[0] for pin in pins_in(project, "default")}
    left_out = {pin.partition("==")[0] for pin in locked_versions()} - names
    assert left_out <= {"setuptools", "pywin32", "tzdata", "waitress", "colorama"}


def test_minimum_is_default_without_drivers_for_postgresql_and_s3(project: dict[str, Any]) -> None:
    default, minimum = (
        {pin.partition("==")[0] for pin in pins_in(project, env_spec)}
        for env_spec in ("default", "minimum")
    )
    assert minimum < default
    assert default - minimum == {
        "boto3", "botocore", "jmespath", "s3transfer",
        "psycopg", "psycopg-binary", "psycopg2-binary",
    }  # fmt: skip


def test_pins_are_those_that_scripts_lock_writes() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "_pins.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--(extra-)?index-url|--find-links)\b", text, re.MULTILINE)
    for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def is_left_out(path: str) -> bool:
    """The platform's reading of `.projectignore` (archiver.py `_FilePattern`), for a file."""
    patterns = (ROOT / ".projectignore").read_text(encoding="utf-8").splitlines()
    for pattern in (line.strip() for line in patterns):
        if not pattern or pattern.startswith("#"):
            continue
        anchored = pattern if pattern.startswith("/") else f"*/{pattern}"
        candidates = [PurePosixPath("/", path), *PurePosixPath("/", path).parents][:-1]
        if anchored.endswith("/"):
            candidates, anchored = candidates[1:], anchored[:-1]
        if any(fnmatch.fnmatch(str(candidate), anchored) for candidate in candidates):
            return True
    return False


def test_archive_holds_everything_that_runs() -> None:
    package = [path.relative_to(ROOT).as_posix() for path in (ROOT / "mlflow_server").rglob("*")]
    needed = [path for path in package if path.endswith((".py", ".typed", ".json", ".yml"))]
    assert len(needed) > 10
    needed += ["anaconda-project.yml", "LICENSE"]
    assert [path for path in needed if is_left_out(path)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".ci/run",
        "anaconda-project-local.yml",
        "benchmarks/serve.py",
        "data/mlflow/standalone/store/mydb.sqlite",
        "deploy/nginx/mlflow.conf",
        "docs/_build/index.html",
        "mlflow_server/__pycache__/cli.cpython-311.pyc",
        "mlflow_tracking_server.egg-info/PKG-INFO",
        "requirements/runtime.txt",
        "scripts/serve",
        "tests/conftest.py",
    ],
)
def test_archive_leaves_out(path: str) -> None:
    assert is_left_out(path)


@pytest.mark.anaconda_project
def test_anaconda_project_finds_no_problem(tmp_path: Path) -> None:
    """By hand: ANACONDA_PROJECT_PYTHON=PYTHON_WITH_IT scripts/test -m anaconda_project.

    That Python has the library from its repository, and ruamel.yaml older than 0.18.
    """
    python = os.environ["ANACONDA_PROJECT_PYTHON"]
    # The package asks conda for the platform when it is imported, and for nothing else here.
    conda = tmp_path / "conda"
    conda.write_text('#!/bin/sh\necho \'{"platform": "linux-64"}\'\n', encoding="utf-8")
    conda.chmod(0o755)
    ask = (
        "import sys; from anaconda_project.project import Project\n"
        "p = Project(sys.argv[1], must_exist=True, scan_parents=False)\n"
        "print(*p.problems, *p.suggestions, sep='\\n', end='')"
    )
    result = subprocess.run(
        [python, "-c", ask, str(ROOT)],
        env={**os.environ, "CONDA_EXE": str(conda)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
