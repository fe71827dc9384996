"""A store with everything that garbage collection has to tell apart, made by MLflow's own store.

Run as a program: `python gc_store.py STORE_URI FOLDER`; prints the ids by name as JSON. The files
are laid below FOLDER as the artifact proxy would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

OLD_MS = 60 * 86_400_000


def make(uri: str, folder: Path) -> dict[str, str]:
    """Fill an empty store; what is deleted was deleted 60 days ago, but for what is `young`."""
    import mlflow
    import mlflow.store.tracking.sqlalchemy_store as tracking
    from mlflow.entities import (
        Dataset,
        DatasetInput,
        InputTag,
        LoggedModelOutput,
        Metric,
        Param,
        RunTag,
    )
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry

    store: Any = tracking.SqlAlchemyStore(uri, "mlflow-artifacts:/")
    registry: Any = Registry(uri)
    mlflow.set_tracking_uri(uri)  # the registry asks there for models that are named by id
    ids: dict[str, str] = {}

    def lay(location: str, *names: str) -> None:
        place = folder / urlsplit(location).path.lstrip("/")
        for name in names:
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def experiment(name: str) -> str:
        ids[name] = store.create_experiment(name)
        return ids[name]

    def run(name: str, where: str) -> str:
        info = store.create_run(where, "user", 0, [], name).info
        ids[name] = info.run_id
        metrics = [Metric(key, 1.0, step, step) for key in ("a", "b") for step in range(3)]
        store.log_batch(info.run_id, metrics, [Param("p", "1")], [RunTag("t", "x")])
        lay(info.artifact_uri, "model/MLmodel", "größe.txt")
        return str(info.run_id)

    def model(name: str, where: str) -> str:
        made = store.create_logged_model(where, name, source_run_id=None)
        ids[name] = made.model_id
        lay(made.artifact_location, "model.bin")
        return str(made.model_id)

    stays, gone, held = experiment("stays"), experiment("gone"), experiment("held")
    for name in ("active", "old", "young", "needed", "unknown"):
        run(name, stays)
    run("gone-1", gone)
    run("gone-2", gone)
    run("held-active", held)
    run("held-old", held)
    shared = Dataset("shared", "d1", "local", "{}")
    alone = Dataset("alone", "d2", "local", "{}")
    tags = [InputTag("mlflow.data.context", "training")]
    store.log_inputs(ids["active"], [DatasetInput(shared, tags)])
    store.log_inputs(ids["old"], [DatasetInput(shared, tags), DatasetInput(alone, tags)])
    for name in ("model-active", "model-old", "model-needed"):
        model(name, stays)
    model("gone-model", gone)
    store.log_outputs(ids["old"], [LoggedModelOutput(ids["model-active"], 0)])
    registry.create_registered_model("registered")
    registry.create_model_version("registered", f"runs:/{ids['needed']}/model", ids["needed"])
    registry.create_model_version("registered", f"models:/{ids['model-needed']}")
    removed = registry.create_model_version("registered", "s3://else/where", ids["old"])
    registry.delete_model_version("registered", removed.version)
    for name in ("old", "young", "needed", "unknown", "held-old"):
        store.delete_run(ids[name])
    for name in ("model-old", "model-needed"):
        store.delete_logged_model(ids[name])
    store.delete_experiment(gone)
    store.delete_experiment(held)
    store.restore_run(ids["held-active"])
    _age(store, ids)
    return ids


def _age(store: Any, ids: dict[str, str]) -> None:
    from sqlalchemy import text

    with store.engine.begin() as connection:
        for statement in (
            f"UPDATE runs SET deleted_time = deleted_time - {OLD_MS} WHERE run_uuid <> :young",  # noqa: S608
            "UPDATE runs SET deleted_time = NULL WHERE run_uuid = :unknown",
            f"UPDATE experiments SET last_update_time = last_update_time - {OLD_MS}",  # noqa: S608
            "UPDATE logged_models SET last_updated_timestamp_ms = "  # noqa: S608
            f"last_updated_timestamp_ms - {OLD_MS}",
        ):
            names = {name: ids[name] for name in ("young", "unknown") if f":{name}" in statement}
            connection.execute(text(statement), names)


if __name__ == "__main__":
    print(json.dumps(make(sys.argv[1], Path(sys.argv[2]))))
