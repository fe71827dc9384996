"""Find out what a launch plan depends on. Reads /proc and installed packages' metadata."""

from pathlib import Path

from mlflow_server.host import file_system_of, usable_cores
from mlflow_server.server.plan import Facts
from mlflow_server.settings.kinds import installed_artifact_schemes
from mlflow_server.settings.model import Settings
from mlflow_server.uris import parse_artifacts_destination, parse_store_uri


def survey(settings: Settings, project_dir: Path | None) -> Facts:
    """The facts for `make_plan`.

    Args:
        settings: Checked settings.
        project_dir: The platform's project folder.
    """
    schemes = installed_artifact_schemes()
    store = parse_store_uri(settings.store.backend_store_uri.get_secret_value())
    destination = parse_artifacts_destination(
        settings.artifacts.destination, plugin_schemes=schemes
    )
    return Facts(
        usable_cores=usable_cores(),
        plugin_schemes=schemes,
        project_dir=project_dir,
        store_on_network=store.path is not None and file_system_of(store.path).is_network,
        artifacts_on_network=destination.path is not None
        and file_system_of(destination.path).is_network,
    )
