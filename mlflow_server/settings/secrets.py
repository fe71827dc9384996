"""The folder of secrets, one file each, as AE5 mounts it; and which texts must never be shown."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from mlflow_server.errors import UsageError
from mlflow_server.settings.model import Settings, iter_definitions
from mlflow_server.uris import credentials_in, parse_store_uri

_MOMENT = "..data"
_MAX_SECRET_BYTES = 1024 * 1024
# Beside our own settings: what MLflow and the client libraries below it read from the environment.
_SECRET_NAMES = re.compile(
    r"^(MLFLOW_|TRACKING_SERVER_|AWS_|AZURE_|GOOGLE_|PG)[A-Z0-9_]+$"
    r"|^(REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_FILE|SSL_CERT_DIR)$"
    r"|^(HTTPS?_PROXY|ALL_PROXY|NO_PROXY|https?_proxy|all_proxy|no_proxy)$"
)
_NEVER_FROM_SECRETS = frozenset({"TRACKING_SERVER_SECRETS_DIR", "TRACKING_SERVER_EXTRA_SECRETS"})
_CREDENTIAL = re.compile(r"KEY|SECRET|TOKEN|PASS|CREDENTIALS$|CONNECTION_STRING|SAS|CLIENT_CERT")


def read_secrets(
    folder: Path, names: set[str], extra: frozenset[str], problems: list[str]
) -> dict[str, str]:
    """The secrets that concern us, by name, without trailing newline; empty ones are left out.

    All of one moment: Kubernetes exchanges the files of a mount together, by one link.
    """
    while True:
        moment = os.path.realpath(folder / _MOMENT)
        found: list[str] = []
        secrets = _read_all(folder, names - _NEVER_FROM_SECRETS, extra, found)
        if os.path.realpath(folder / _MOMENT) == moment:
            problems += found
            return secrets


def _read_all(
    folder: Path, wanted: set[str], extra: frozenset[str], problems: list[str]
) -> dict[str, str]:
    secrets: dict[str, str] = {}
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as err:
        problems.append(f"{folder}: cannot read the secrets folder: {err.strerror}")
        return {}
    for path in entries:
        name = path.name
        if name in _NEVER_FROM_SECRETS or name.startswith("."):
            continue
        if not (name in wanted or name in extra or _SECRET_NAMES.match(name)):
            continue
        text = _read_secret(path, problems)
        if text:
            secrets[name] = text
    return secrets


def _read_secret(path: Path, problems: list[str]) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as err:
        problems.append(f"{path.name} (secret): cannot read {path}: {err.strerror}")
        return None
    if len(content) > _MAX_SECRET_BYTES:
        problems.append(f"{path.name} (secret): {path} is longer than 1 MiB; write the value alone")
        return None
    if b"\0" in content:
        problems.append(f"{path.name} (secret): {path} holds a NUL byte; write plain text")
        return None
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        problems.append(f"{path.name} (secret): {path} is not UTF-8 text; write plain text")
        return None


def secret_values(
    settings: Settings, environ: Mapping[str, str], secrets: Mapping[str, str]
) -> frozenset[str]:
    """Every text that must never be printed.

    Args:
        settings: Checked settings.
        environ: The process environment; what client libraries take credentials from counts too.
        secrets: What was read from the secrets folder.
    """
    names = {definition.setting.name for definition in iter_definitions()}
    values: set[str] = set()
    for definition in iter_definitions():
        value = getattr(getattr(settings, definition.group), definition.field)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            values |= credentials_in(text) if _is_store_uri(text) else {text}
        elif isinstance(value, str):
            values |= credentials_in(value)
    for name, text in environ.items():
        if name not in names:
            values |= credentials_in(text) if _SECRET_NAMES.match(name) else set()
            if name in settings.secrets.extra or is_credential(name):
                values.add(text)
    for name, text in secrets.items():
        values |= credentials_in(text)
        if name in settings.secrets.extra or is_credential(name):
            values.add(text)
    return frozenset(value for value in values if value)


def _is_store_uri(text: str) -> bool:
    try:
        parse_store_uri(text)
    except ValueError:
        return False
    return True


def is_read(name: str) -> bool:
    """Whether a secret of that name is read from the folder, unless a setting asks for more."""
    names = {definition.setting.name for definition in iter_definitions()}
    return name in names - _NEVER_FROM_SECRETS or _SECRET_NAMES.match(name) is not None


def require_no_secret(what: str, name: str, value: str) -> None:
    """Raise for a value that everybody could read where it is to be put.

    Args:
        what: The option that it was given with.
        name: Of the variable.
        value: Its value; the message does not repeat it.

    Raises:
        UsageError: It is a secret, or holds one.
    """
    secret = {d.setting.name for d in iter_definitions() if d.is_secret}
    # A URI is a secret for the password in it.
    is_secret = (name in secret or is_credential(name)) and not name.endswith("_URI")
    if is_secret or credentials_in(value):
        raise UsageError(
            f"{what} {name}: is a secret, and everybody could read it there",
            hint=f"mlflow-server ae5 secrets set {name}",
        )


def is_credential(name: str) -> bool:
    """Whether a variable or secret holds a credential, judged by its name.

    Masked everywhere, a region or a log level would blind every line.
    """
    return _SECRET_NAMES.match(name) is not None and _CREDENTIAL.search(name) is not None
