"""Slip-stream customisations: values and packages of a site, put into anaconda-project.yml.

The file is changed where it has to be and nowhere else: its comments explain it to operators.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from mlflow_server.errors import BadInputError, UsageError
from mlflow_server.settings.secrets import require_no_secret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# anaconda-project refuses these (facts of anaconda-project 0.13).
_REFUSED = frozenset({"CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_ENV_PATH"})
_ENV_SPEC = "default"
_PIP_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Customisation:
    """What a site has changed in a release.

    Args:
        variables: Values by name.
        packages: Further requirements: of pip, or of conda as `channel::package`.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    packages: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.variables or self.packages)

    def and_then(self, later: "Customisation") -> "Customisation":
        """Both, the later one winning."""
        packages = (*self.packages, *(p for p in later.packages if p not in self.packages))
        return Customisation({**self.variables, **later.variables}, packages)


def customise(text: str, wanted: Customisation) -> str:
    """Put values and packages into the text of an anaconda-project.yml.

    Args:
        text: Of the file.
        wanted: What to put in.

    Raises:
        UsageError: A name or a package cannot be.
        BadInputError: The file is not understood.
    """
    for name, value in wanted.variables.items():
        if not _NAME.fullmatch(name) or name in _REFUSED:
            raise UsageError(f"--set {name}: is no name of a variable")
        if not value:
            raise UsageError(
                f"--set {name}: an empty value would make it required", hint="leave it away"
            )
        require_no_secret("--set", name, value)
        text = _with_variable(text, name, value)
    for package in wanted.packages:
        text = _with_package(text, package)
    return text


def _with_variable(text: str, name: str, value: str) -> str:
    variables = _below(_root(text), "variables")
    if not isinstance(variables, yaml.MappingNode):
        raise BadInputError("anaconda-project.yml: has no variables")
    known = _below(variables, name)
    # A quoted text in every case: `true` and `1.0` are to stay what was typed.
    quoted = json.dumps(value, ensure_ascii=False)
    if known is None:
        where, indent = _line_after(text, variables), " " * variables.start_mark.column
        return f"{text[:where]}{indent}{name}:\n{indent}  default: {quoted}\n{text[where:]}"
    place = _below(known, "default") if isinstance(known, yaml.MappingNode) else known
    if not isinstance(place, yaml.ScalarNode):
        raise BadInputError(f"anaconda-project.yml: variable {name} has no default to replace")
    return text[: place.start_mark.index] + quoted + text[place.end_mark.index :]


def _with_package(text: str, package: str) -> str:
    if not package.strip() or any(c in package for c in "\n\r\"'") or " #" in package:
        raise UsageError(f"--add-package {package!r}: is no requirement")
    spec = _below(_below(_root(text), "env_specs"), _ENV_SPEC)
    packages = _below(spec, "packages")
    if not isinstance(packages, yaml.SequenceNode):
        raise BadInputError(f"anaconda-project.yml: environment {_ENV_SPEC} has no packages")
    pip = next((p for p in map(_pip_of, packages.value) if p is not None), None)
    listed = packages if "::" in package else pip
    if listed is None:
        raise BadInputError(f"anaconda-project.yml: environment {_ENV_SPEC} has no pip packages")
    for node in listed.value:
        if isinstance(node, yaml.ScalarNode) and _plain(node.value) == _plain(package):
            if node.value == package:
                return text
            raise UsageError(
                f"--add-package {package}: this release has {node.value}, which it was tested with",
                hint="another release of this project brings another one",
            )
    where, indent = _line_after(text, listed.value[0]), " " * listed.start_mark.column
    return f"{text[:where]}{indent}- {json.dumps(package)}\n{text[where:]}"


def _pip_of(node: yaml.Node) -> yaml.SequenceNode | None:
    found = _below(node, "pip") if isinstance(node, yaml.MappingNode) else None
    return found if isinstance(found, yaml.SequenceNode) else None


def _plain(requirement: str) -> str:
    """The name in a requirement, as indexes compare names."""
    name = _PIP_NAME.match(requirement.rpartition("::")[2])
    return re.sub(r"[-_.]+", "-", name[0].lower()) if name else requirement


def _root(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise BadInputError("anaconda-project.yml: is not YAML") from None


def _below(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                return value  # type: ignore[no-any-return]
    return None


def _line_after(text: str, node: yaml.Node) -> int:
    """Where the line after a node begins, but for blank lines and comments that follow it."""
    end = len(text[: node.end_mark.index].rstrip())
    newline = text.find("\n", end)
    return len(text) if newline < 0 else newline + 1
