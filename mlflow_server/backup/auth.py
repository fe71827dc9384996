"""Where the users of MLflow's basic authentication are kept."""

import configparser
from collections.abc import Mapping
from pathlib import Path

from mlflow_server.errors import SettingsError
from mlflow_server.uris import StoreUri, parse_store_uri

_SETTING = "MLFLOW_AUTH_CONFIG_PATH"


def find_auth_store(environ: Mapping[str, str]) -> StoreUri | None:
    """The database that MLflow's basic-auth application is configured with; None without one.

    Args:
        environ: Where `MLFLOW_AUTH_CONFIG_PATH` is.

    Raises:
        SettingsError: The configuration cannot be used.

    Source: MLflow 3.17.2 `server/auth/config.py`.
    """
    name = environ.get(_SETTING)
    if not name:
        return None
    parser = configparser.ConfigParser()
    try:
        parser.read_string(Path(name).read_text("utf-8"))
        return parse_store_uri(parser["mlflow"]["database_uri"], _SETTING)
    except OSError as err:
        reason = f"cannot be read: {err.strerror}"
    except (configparser.Error, KeyError, UnicodeDecodeError):
        reason = "names no database_uri in a section [mlflow]"
    except ValueError as err:
        reason = f"its database_uri {err}"
    raise SettingsError([f"{_SETTING}: {reason}"], hint="correct the file, or unset the variable")
