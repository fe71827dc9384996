"""`ae5 secrets`: the account's secrets on the platform, whose values nobody gets to see."""

import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.ae5.names import require_secret_name
from mlflow_server.ae5.program import Ae5
from mlflow_server.errors import (
    BadInputError,
    PermissionDeniedError,
    UnavailableError,
    UsageError,
)
from mlflow_server.settings.load import load_settings
from mlflow_server.settings.secrets import is_read

# Without these a server forgets everything at its next restart.
NEEDED = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION")

_LARGEST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Checked:
    """What there is to say about the account's secrets.

    Args:
        there: Names that are there.
        missing: Names that are wanted and are not.
        unknown: Names that the server does not read.
    """

    there: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def list_secrets(ae5: Ae5) -> list[str]:
    """The names of the account's secrets."""
    return sorted(str(each["secret_name"]) for each in ae5.records("secret", "list"))


def check_secrets(ae5: Ae5, wanted: Iterable[str]) -> Checked:
    """Compare what is there with what is wanted."""
    there = list_secrets(ae5)
    unknown = tuple(name for name in there if not is_read(name))
    missing = tuple(name for name in wanted if name not in there)
    return Checked(tuple(there), missing, unknown)


def set_secrets(ae5: Ae5, values: Mapping[str, str]) -> None:
    """Set secrets, whether they are there or not.

    Args:
        ae5: The program; it gets them on the standard input of one process.
        values: By name.

    Raises:
        OpsError: One could not be set; those before it have been.
    """
    # What stands after -- is no option, whatever it begins with.
    ae5.hidden(*(("secret", "add", "--", name, value) for name, value in values.items()))


def read_values(
    names: Sequence[str],
    file: Path | None,
    environ: Mapping[str, str],
    ask: Callable[[str], str | None],
) -> dict[str, str]:
    """The values of secrets, from where no command line shows them.

    Args:
        names: Which; empty for all in the file.
        file: Lines of the form NAME=VALUE; `-` for standard input. For one name it may be the bare
            value.
        environ: Has those that no file has.
        ask: Asks for the others, where somebody can be asked; gives None where not.

    Raises:
        UsageError: A value is nowhere, or a name cannot be.
        OpsError: The file cannot be used.
    """
    found = _read_file(file, names) if file is not None else {}
    values = {}
    for name in names or found:
        require_secret_name(name)
        value = found.get(name) or environ.get(name) or ask(name)
        if not value:
            raise UsageError(
                f"secret {name}: has no value",
                hint=f"set the variable {name}, or give NAME=VALUE lines in a file: --values-file",
            )
        _require_sound(name, value)
        values[name] = value
    _require_settings(values)
    return values


def _read_file(file: Path, names: Sequence[str]) -> dict[str, str]:
    if file == Path("-"):
        shown, content = "standard input", sys.stdin.buffer.read(_LARGEST_BYTES + 1)
    else:
        shown = str(file)
        try:
            if file.stat().st_mode & 0o077:
                raise PermissionDeniedError(
                    f"{shown}: others may read it", hint=f"chmod 600 {shown}"
                )
            content = file.read_bytes()
        except OSError as err:
            raise UnavailableError(f"{shown}: cannot be read: {err.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise BadInputError(f"{shown}: is longer than 1 MiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadInputError(f"{shown}: is not UTF-8 text") from None
    return _parse(text, shown, names)


def _parse(text: str, shown: str, names: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE lines as in a file for a shell: quotes around a value are none of it."""
    from dotenv import dotenv_values

    if len(names) == 1 and f"{names[0]}=" not in text:
        return {names[0]: text.strip("\r\n")}
    found = dotenv_values(stream=io.StringIO(text), interpolate=False)
    values = {name: value for name, value in found.items() if value}
    if len(values) < len(found) or not found:
        raise BadInputError(
            f"{shown}: has a line that is not of the form NAME=VALUE",
            hint="a line that begins with # is a comment",
        )
    return values


def _require_sound(name: str, value: str) -> None:
    if "\0" in value or len(value.encode()) > _LARGEST_BYTES:
        raise BadInputError(f"secret {name}: holds a NUL byte, or is longer than 1 MiB")


def _require_settings(values: Mapping[str, str]) -> None:
    """Raise when the server could not use the values: told now, and not at its next start."""
    alone = {"TRACKING_SERVER_SECRETS_DIR": os.devnull, **values}
    load_settings(environ=alone, project_dir=Path(os.devnull))
