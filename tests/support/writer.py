"""A client that writes without a pause, until its standard input ends.

Run as a program: `python writer.py SERVER_URL NAME`; prints a line for each run that is complete.
The artifact of a run is there before its param `artifact` says which digest it has. Ends with 1
when a request failed.
"""

from __future__ import annotations

import hashlib
import json
import select
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any


class Writer:
    """Writes.

    Args:
        url: Of a server.
        name: Of this one among several.
    """

    def __init__(self, url: str, name: str) -> None:
        self.connection = HTTPConnection(url.partition("://")[2], timeout=60)
        self.name = name
        made = self.post("experiments/create", {"name": f"of writer {name}"})
        self.experiment = made["experiment_id"]
        self.post("registered-models/create", {"name": f"model of {name}"})
        self.first: str | None = None

    def ask(self, method: str, path: str, body: bytes, kind: str) -> bytes:
        self.connection.request(method, path, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        body = json.dumps(document).encode()
        return json.loads(self.ask("POST", f"/api/2.0/mlflow/{path}", body, "application/json"))

    def put(self, run_id: str, name: str, content: bytes) -> None:
        path = f"/api/2.0/mlflow-artifacts/artifacts/{self.experiment}/{run_id}/artifacts/{name}"
        self.ask("PUT", path, content, "application/octet-stream")

    def write(self, number: int) -> None:
        """One run, with all that belongs to it."""
        wanted = {"experiment_id": self.experiment, "run_name": f"{self.name}-{number}"}
        run_id = self.post("runs/create", wanted)["run"]["info"]["run_id"]
        self.first = self.first or run_id
        content = f"{run_id}\n".encode() * (1 + number * 37 % 3_000)
        self.put(run_id, "data/content.bin", content)
        digest = hashlib.sha256(content).hexdigest()
        self.post("runs/log-parameter", {"run_id": run_id, "key": "artifact", "value": digest})
        metrics = [
            {"key": f"m{key}", "value": step * 0.5, "timestamp": step, "step": step}
            for key in range(5)
            for step in range(10)
        ]
        self.post("runs/log-batch", {"run_id": run_id, "metrics": metrics})
        version = {"name": f"model of {self.name}", "run_id": run_id, "source": f"runs:/{run_id}/x"}
        self.post("model-versions/create", version)
        # Is written again and again while it is read.
        self.put(self.first, "changing.bin", f"{number}".encode() * 50_000)
        self.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": number})


def main() -> None:
    """Write until told to stop."""
    writer = Writer(sys.argv[1], sys.argv[2])
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        writer.write(number)
        print(number, flush=True)


if __name__ == "__main__":
    main()
