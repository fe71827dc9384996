"""The environment in which MLflow's app is imported. Pure.

MLflow's server reads its configuration from environment variables that its own command line sets
for its workers (MLflow 3.17.2 `server/constants.py`, `server/__init__.py` `_run_server`).
"""

import uuid

from mlflow_server.server.plan import LaunchPlan, mlflow_allowed_hosts
from mlflow_server.store.engine import driver_url
from mlflow_server.uris import StoreUri

TELEMETRY_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# One thread at the time of the fork (run.py): jemalloc of pyarrow and OpenBLAS of numpy start
# threads on import unless told not to.
SINGLE_THREADED_IMPORT = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def server_environment(plan: LaunchPlan) -> dict[str, str]:
    """Variables to set before `mlflow.server.fastapi_app` is imported; holds credentials."""
    environment = {
        **TELEMETRY_OFF,
        **SINGLE_THREADED_IMPORT,
        "_MLFLOW_SERVER_FILE_STORE": mlflow_uri(plan.store),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": plan.default_artifact_root,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": plan.destination.text,
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ALLOWED_HOSTS": mlflow_allowed_hosts(plan.allowed_names),
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(plan.pool_size),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(plan.max_overflow),
        "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": str(plan.pool_recycle_s),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": str(plan.job_execution).lower(),
    }
    if plan.registry is not None:
        environment["_MLFLOW_SERVER_REGISTRY_STORE"] = mlflow_uri(plan.registry)
    if plan.read_replica is not None:
        environment["_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"] = mlflow_uri(plan.read_replica)
    if plan.allowed_origins:
        environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(plan.allowed_origins)
    if plan.frame_ancestors:
        # X-Frame-Options cannot name hosts; front.py says it by Content-Security-Policy instead.
        environment["MLFLOW_SERVER_X_FRAME_OPTIONS"] = "NONE"
    return environment


def mlflow_uri(uri: StoreUri) -> str:
    """MLflow knows SQLite by `sqlite:///`; the other URIs get their driver spelled out."""
    return uri.text if uri.is_sqlite else driver_url(uri)
