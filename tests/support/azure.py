"""A real server of Azure Blob Storage's API."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from tests.support.programs import REPOSITORY, START_TIMEOUT_S, free_port

FOLDER = REPOSITORY / "tests/tools/azurite"
INSTALL = "npm ci --prefix tests/tools/azurite --ignore-scripts --no-audit --no-fund"
_MAIN = FOLDER / "node_modules/azurite/dist/src/blob/main.js"


def why_not() -> str | None:
    """Why Azurite cannot be started here, as a sentence; None when it can."""
    if shutil.which("node") is None:
        return f"node is not installed; install it and npm, then: {INSTALL}"
    if not _MAIN.exists():
        return f"Azurite is not installed: {INSTALL}"
    return None


@dataclass(frozen=True)
class AzureServer:
    """Azurite's blob service with one account.

    Args:
        port: On this machine, plain HTTP.
        account: The account's name; also the first part of its host.
        key: The account's key.
    """

    port: int
    account: str = "tracking"
    key: str = field(default_factory=lambda: base64.b64encode(os.urandom(64)).decode())

    @property
    def connection_string(self) -> str:
        """The whole of it, key included."""
        return self.connection_string_with()

    def connection_string_with(self, *, key: str | None = None, port: int | None = None) -> str:
        """The connection string with another key or port."""
        endpoint = f"http://127.0.0.1:{port or self.port}/{self.account}"
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};"
            f"AccountKey={key or self.key};BlobEndpoint={endpoint};"
        )

    def uri(self, container: str) -> str:
        """A destination in a container. MLflow wants Azure's host in it, whatever is asked."""
        return f"wasbs://{container}@{self.account}.blob.core.windows.net/artifacts"

    def new_container(self) -> str:
        """Create an empty container and return its name."""
        name = f"c{uuid.uuid4().hex}"
        with self._administer() as client:
            client.create_container(name)
        return name

    def content(self, container: str) -> list[str]:
        """Every blob in a container."""
        with self._administer() as client:
            return list(client.get_container_client(container).list_blob_names())

    def containers(self) -> list[str]:
        """The names of all containers."""
        with self._administer() as client:
            return [str(container.name) for container in client.list_containers()]

    def _administer(self) -> BlobServiceClient:
        return BlobServiceClient.from_connection_string(self.connection_string, retry_total=0)


@contextlib.contextmanager
def run_azurite(folder: Path) -> Iterator[AzureServer]:
    """Start it on a free port; nothing is kept."""
    server = AzureServer(free_port())
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(server.port), "--inMemoryPersistence"]
    flags += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(
            ["node", str(_MAIN), *flags],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{server.account}:{server.key}"},
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", server.port), timeout=1),
            ):
                break
            assert process.poll() is None, (folder / "azurite.log").read_text()
            assert time.monotonic() < deadline, "Azurite does not answer"
            time.sleep(0.1)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
