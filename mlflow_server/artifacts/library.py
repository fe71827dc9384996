"""Client libraries of object stores, which may not be installed."""

import importlib

from mlflow_server.errors import SettingsError


def require_module(subject: str, name: str, *, extra: str) -> None:
    """Import a module of a client library.

    Args:
        subject: What needs it, for the message.
        name: The module, dotted.
        extra: Which extra of this project brings it.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        raise SettingsError(
            [f"{subject} needs the package {name}, which is not installed"],
            hint=f"pip install 'mlflow-tracking-server[{extra}]'",
        ) from None
