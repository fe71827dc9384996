"""The ASGI app: MLflow's own FastAPI app with our middleware in front.

MLflow is only imported inside functions; `environment.py` must be in force before they are called.
"""

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_server.log import Redactor, adopt_library_loggers
from mlflow_server.server import shortcuts, tuning
from mlflow_server.server.environment import mlflow_uri
from mlflow_server.server.front import App, Front
from mlflow_server.server.health import Readiness, livez, state_file_in
from mlflow_server.server.lifespan import WorkerLifespan
from mlflow_server.server.observe import Observe, flask_route, note_route
from mlflow_server.server.plan import LaunchPlan
from mlflow_server.server.redact import RedactErrors
from mlflow_server.uris import credentials_in

if TYPE_CHECKING:
    from mlflow_server.server.metrics import Metrics

log = logging.getLogger(__name__)


def import_mlflow() -> None:
    """Import MLflow's server once, in the process that all workers are forked from.

    Only defines things: stores, engines and threads come to life in the workers (`start_worker`).
    """
    import gc
    import warnings

    # What an import makes is there to stay: looking for garbage in it takes a fifth of the time.
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow.server.fastapi_app  # noqa: F401
    finally:
        gc.enable()
    adopt_library_loggers()


def create_app(plan: LaunchPlan, runtime_folder: Path, metrics: "Metrics | None") -> App:
    """Put our middleware in front of MLflow's app.

    Args:
        plan: The launch.
        runtime_folder: Shared by the workers of this server.
        metrics: Where to count requests, when `/metrics` is wanted.

    Returns:
        The app that the workers serve.
    """
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app as fastapi_app

    flask_app.before_request_funcs.setdefault(None, []).insert(0, _note_flask_route)
    shortcuts.spare_middleware(fastapi_app)
    shortcuts.use_own_bridge(fastapi_app, flask_app)
    shortcuts.route_straight_to_flask(fastapi_app, flask_app)
    probes: dict[str, App] = {
        "/livez": livez,
        "/readyz": Readiness(plan, state_file_in(runtime_folder)),
    }
    if metrics is not None:
        probes["/metrics"] = metrics
    worker = WorkerLifespan(
        fastapi_app,
        functools.partial(start_worker, plan),
        threads=plan.threads,
        runtime_folder=runtime_folder,
        metrics=metrics,
    )
    texts = [plan.destination.text, *(uri.text for uri in plan.stores)]
    secrets = {secret for text in texts for secret in credentials_in(text)}
    front: App = Front(worker, plan, probes)
    if secrets:
        front = RedactErrors(front, Redactor(secrets))
    return Observe(front, metrics, log_requests=plan.access_log)


def _note_flask_route() -> None:
    from flask import request

    if request.url_rule is not None:
        note_route(flask_route(request.url_rule.rule))


def start_worker(plan: LaunchPlan) -> list[Any]:
    """Open the stores, so that the first request finds them and a broken one shows at start.

    Returns:
        The database engines of this worker.
    """
    tuning.limit_retries()
    tuning.give_connections_defaults()
    tuning.compact_answers()
    tuning.remember_missing_auth()
    engines = tuning.share_engines()
    open_stores(plan)
    for engine in engines.values():
        tuning.tune_engine(engine)
    return list(engines.values())


def open_stores(plan: LaunchPlan) -> None:
    """Construct MLflow's stores; on a new store this makes the experiment `Default`."""
    from mlflow.server import handlers

    store = mlflow_uri(plan.store)
    handlers.initialize_backend_stores(
        store,
        mlflow_uri(plan.registry) if plan.registry else store,
        plan.default_artifact_root,
        read_replica_backend_store_uri=mlflow_uri(plan.read_replica) if plan.read_replica else None,
    )
