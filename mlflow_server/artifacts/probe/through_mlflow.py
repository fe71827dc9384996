"""Probe what only MLflow's artifact repositories know: HDFS, plugins and rarer schemes."""

import logging
import tempfile
from pathlib import Path

from mlflow_server.artifacts.probe.round_trip import SETTING, new_key, round_trip
from mlflow_server.errors import OpsError, SettingsError, UnavailableError
from mlflow_server.uris import ArtifactUri

log = logging.getLogger(__name__)


def probe_repository(uri: ArtifactUri) -> None:
    """Write, read and delete an artifact through the repository that MLflow has for the scheme.

    Raises:
        OpsError: See `mlflow_server.artifacts.probe.probe`.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    name = new_key("")
    try:
        repository = get_artifact_repository(uri.text)
        with tempfile.TemporaryDirectory(prefix="mlflow-server-") as folder:
            path = Path(folder) / name
            back = Path(folder) / "back"
            back.mkdir()

            def write(content: bytes) -> None:
                path.write_bytes(content)
                repository.log_artifact(str(path))

            round_trip(
                uri,
                write=write,
                read=lambda: Path(repository.download_artifacts(name, str(back))).read_bytes(),
                delete=lambda: repository.delete_artifacts(name),
            )
    except OpsError:
        raise
    except ModuleNotFoundError as err:
        raise SettingsError(
            [f"{SETTING}: {uri.shown} needs the package {err.name}, which is not installed"],
            hint=f"pip install the client library of {uri.text.partition(':')[0]}",
        ) from None
    except Exception as err:
        # Any of the client libraries may have raised; their texts can hold credentials.
        log.debug("the probe of the artifact destination failed", exc_info=True)
        raise UnavailableError(
            f"{SETTING}: {uri.shown}: write, read, delete of a probe failed ({type(err).__name__})"
        ) from None
