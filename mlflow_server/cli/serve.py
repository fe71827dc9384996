"""`serve`: run the tracking server."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from mlflow_server.cli.shared import Context, common_options, load, pass_context, setting_options
from mlflow_server.settings.load import LoadedSettings

log = logging.getLogger("mlflow_server.server")

# For another server that upgrades the same store.
_UPGRADE_WAIT_S = 1800

EPILOG = """\b
Examples:
  mlflow-server serve
  mlflow-server serve --host 0.0.0.0 --public-url https://mlflow.example.com
  MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@db/mlflow mlflow-server serve --workers 4

Give passwords by environment or secret, not as an option. Stops with exit code 0 on SIGTERM or
Ctrl-C, after requests in flight have had time to finish. /livez, /readyz and /health answer
probes."""


@click.command("serve", epilog=EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_HOST",
    "MLFLOW_PORT",
    "MLFLOW_WORKERS",
    "TRACKING_SERVER_PUBLIC_URL",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    "TRACKING_SERVER_TRUSTED_PROXIES",
    "TRACKING_SERVER_GRACEFUL_TIMEOUT",
    "TRACKING_SERVER_METRICS",
    "TRACKING_SERVER_ACCESS_LOG",
    "TRACKING_SERVER_UPGRADE_ON_START",
)
@common_options
@pass_context
def command(context: Context, options: Mapping[str, str]) -> None:
    """Run the tracking server.

    Checks settings, port, database and artifact destination first and says in one line what is
    wrong. An empty database is initialised; an old one is refused, or upgraded after a backup with
    --upgrade-on-start.
    """
    from mlflow_server.server.guard import Stopped, stop_on_signals

    try:
        with stop_on_signals():
            _serve(context, options)
    except Stopped:
        log.info("stopped while starting")


def _serve(context: Context, options: Mapping[str, str]) -> None:
    loaded = load(context, options)
    from mlflow_server.server.plan import make_plan
    from mlflow_server.server.preflight import check_all
    from mlflow_server.server.survey import survey

    os.environ.update(loaded.credentials)
    if loaded.settings.upgrade.on_start:
        _upgrade(context, loaded)
    plan = make_plan(loaded, survey(loaded.settings, _project_dir()))
    preflight = check_all(plan, os.environ)
    for warning in (*plan.warnings, *preflight.warnings):
        log.warning("%s", warning)

    from mlflow_server.server.environment import server_environment
    from mlflow_server.server.run import run

    run(plan, preflight, server_environment(plan))


def _upgrade(context: Context, loaded: LoadedSettings) -> None:
    """Upgrade an old store in a process of its own: the server imports MLflow in its own way.

    Of several servers that start at once, one does it and the others wait.
    """
    from mlflow_server.cli.backup import databases_of
    from mlflow_server.errors import BusyError
    from mlflow_server.store.revision import UPGRADABLE, read_store_status

    databases = databases_of(loaded)
    try:
        if not {read_store_status(uri).state for uri in databases.values()} & UPGRADABLE:
            return
    except BusyError:
        log.info("somebody else is at the store: waiting")
    log.info("the store has an older schema; upgrading it")
    names = {"backend": "MLFLOW_BACKEND_STORE_URI", "registry": "MLFLOW_REGISTRY_STORE_URI"}
    uris = {names[name]: uri.text for name, uri in databases.items() if name in names}
    command = (sys.executable, "-m", "mlflow_server", "upgrade", "--wait", str(_UPGRADE_WAIT_S))
    done = subprocess.run(  # noqa: S603 - this very program
        command,
        env={**os.environ, **uris},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        context.exit_code = done.returncode
        raise SystemExit(done.returncode)


def _project_dir() -> Path:
    return Path(os.environ.get("PROJECT_DIR") or ".")
