"""`upgrade --check`: what there is to do, without MLflow."""

from collections.abc import Mapping

from mlflow_server.upgrade.survey import Surveyed, survey
from mlflow_server.uris import StoreUri


def look(databases: Mapping[str, StoreUri]) -> dict[str, Surveyed]:
    """What there is to do to each database of a server.

    Args:
        databases: By what they are: `backend`, and where there are any `registry` and `auth`.

    Raises:
        SchemaError: One is none that this release can upgrade.
        OpsError: One cannot be reached or read.
    """
    return {name: survey(uri, is_auth=name == "auth") for name, uri in databases.items()}
