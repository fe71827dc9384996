"""Time `MlflowClient.log_metric`, one call after the other; a program of its own.

It runs in its own process, as a training script does, and takes its connections with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

WARM_UP_CALLS = 20


def timed_calls(tracking_uri: str, experiment_id: str, call_count: int) -> list[float]:
    """Milliseconds of each call, in order, after `WARM_UP_CALLS` that are not counted."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    run_id = client.create_run(experiment_id).info.run_id
    times_ms = []
    for step in range(WARM_UP_CALLS + call_count):
        started = time.perf_counter()
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
        times_ms.append((time.perf_counter() - started) * 1000)
    return times_ms[WARM_UP_CALLS:]


def main() -> None:
    """Print the times as a JSON list."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tracking_uri")
    parser.add_argument("experiment_id")
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    json.dump(
        timed_calls(arguments.tracking_uri, arguments.experiment_id, arguments.calls), sys.stdout
    )


if __name__ == "__main__":
    main()
