"""Destinations of every kind with something on them, to be removed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from azure.storage.blob import BlobServiceClient

from mlflow_server.uris import ArtifactUri, parse_artifacts_destination
from tests.standins.lake import FILE_SYSTEM, SIGNATURE, Lake
from tests.support.azure import AzureServer
from tests.support.gcs import GcsServer
from tests.support.programs import http
from tests.support.s3 import S3Server

PREFIX = "pre fix/deep"
LAKE_HOSTS = ("account.dfs.core.windows.net", "account.blob.core.windows.net")

T = TypeVar("T")


@dataclass(frozen=True)
class Shelf:
    """A destination and what is around it.

    Args:
        text: Its URI.
        environ: What is needed to use it.
        write: Puts files there: content by path below the destination.
        paths: What is there, below the destination, and above it beginning with `/`.
        port: Of the HTTP server behind it, 0 when there is none.
        at_port: The environment to use it at another port.
        refused: The environment with a credential that is refused; it has `hidden` in it.
        missing: URI and environment of a bucket that does not exist.
        tells_times: When things were written.
        has_folders: Also without anything in them.
        many: So many files take several pages and requests.
    """

    text: str
    environ: Mapping[str, str]
    write: Callable[[Mapping[str, bytes]], None]
    paths: Callable[[], set[str]]
    port: int = 0
    at_port: Callable[[int], Mapping[str, str]] = field(default=lambda _: {})
    refused: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, Mapping[str, str]] = ("", {})
    tells_times: bool = True
    has_folders: bool = False
    many: int = 2_500

    @property
    def where_nothing_is(self) -> Shelf:
        """One that is missing."""
        return replace(self, text=self.missing[0], environ=self.missing[1])

    @property
    def destination(self) -> ArtifactUri:
        """As our own code knows it."""
        return parse_artifacts_destination(self.text, plugin_schemes=frozenset())

    def lay(self, *paths: str) -> None:
        """Put files of five bytes there."""
        self.write(dict.fromkeys(paths, b"12345"))


def local_shelf(folder: Path) -> Shelf:
    """A folder of this machine."""
    root = folder / PREFIX
    root.mkdir(parents=True)

    def write(files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)

    def paths() -> set[str]:
        return below(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    return Shelf(str(root), {}, write, paths, has_folders=True)


def server_shelf(port: int, token: str, folder: Path) -> Shelf:
    """What a tracking server keeps in a folder, in a part of it of our own.

    Args:
        port: Of a gateway that asks for a token.
        token: Which.
        folder: The server's destination.
    """
    part = uuid.uuid4().hex
    (folder / part).mkdir()
    disk = local_shelf(folder / part)

    def at_port(port: int, token: str = token, path: str = "") -> Mapping[str, str]:
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}{path}",
            "MLFLOW_TRACKING_TOKEN": token,
        }

    return replace(
        disk,
        text=f"mlflow-artifacts:/{part}/{quote(PREFIX)}",
        environ=at_port(port),
        port=port,
        at_port=at_port,
        refused=at_port(port, "hidden"),
        missing=("mlflow-artifacts:/", at_port(port, path="/not/here")),
        tells_times=False,
        has_folders=False,
    )


def s3_shelf(server: S3Server, bucket: str) -> Shelf:
    """A prefix of a bucket."""

    def write(files: Mapping[str, bytes]) -> None:
        with server.administer() as client:
            in_threads(
                lambda file: client.put_object(
                    Bucket=bucket, Key=f"{PREFIX}/{file[0]}", Body=file[1]
                ),
                files.items(),
            )

    def paths() -> set[str]:
        with server.administer() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            return below(entry["Key"] for page in pages for entry in page.get("Contents", ()))

    return Shelf(
        f"s3://{bucket}/{PREFIX}",
        server.environment,
        write,
        paths,
        port=int(server.endpoint.rpartition(":")[2]),
        at_port=lambda port: {
            **server.environment,
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        },
        refused={**server.environment, "AWS_SECRET_ACCESS_KEY": "hidden"},
        missing=(f"s3://missing-{bucket}/x", server.environment),
    )


def gcs_shelf(server: GcsServer, port: int, refusing_port: int, bucket: str) -> Shelf:
    """A prefix of a bucket.

    Args:
        server: That has it.
        port: Of what stands in front of it.
        refusing_port: Of a server that refuses everybody, as this one refuses nobody.
        bucket: Its name.
    """

    def put(file: tuple[str, bytes]) -> None:
        name = quote(f"{PREFIX}/{file[0]}", safe="")
        address = f"{server.endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
        answer = http(address, method="POST", body=file[1])
        assert answer.status == 200, answer

    def at_port(port: int) -> Mapping[str, str]:
        return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}

    return Shelf(
        f"gs://{bucket}/{PREFIX}",
        at_port(port),
        lambda files: in_threads(put, files.items()),
        lambda: below(server.content(bucket)),
        port=port,
        at_port=at_port,
        refused=at_port(refusing_port),
        missing=(f"gs://missing-{bucket}/x", server.environment),
        many=250,
    )


def azure_shelf(server: AzureServer, container: str) -> Shelf:
    """A prefix of a container."""

    def at_port(port: int, key: str | None = None) -> Mapping[str, str]:
        text = server.connection_string_with(port=port, key=key)
        return {"AZURE_STORAGE_CONNECTION_STRING": text}

    def write(files: Mapping[str, bytes]) -> None:
        with BlobServiceClient.from_connection_string(server.connection_string) as service:
            blobs = service.get_container_client(container)
            in_threads(
                lambda file: blobs.upload_blob(f"{PREFIX}/{file[0]}", file[1], overwrite=True),
                files.items(),
            )

    uri = f"wasbs://{container}@{server.account}.blob.core.windows.net/{PREFIX}"
    return Shelf(
        uri,
        at_port(server.port),
        write,
        lambda: below(server.content(container)),
        port=server.port,
        at_port=at_port,
        refused=at_port(server.port, "hiddenhiddenhiddenhidden"),
        missing=(uri.replace(container, f"missing-{container}"), at_port(server.port)),
        many=1_100,
    )


def lake_shelf(lake: Lake, at_port: Callable[[int], Mapping[str, str]]) -> Shelf:
    """A folder of the file system of a stand-in.

    Args:
        lake: That has it.
        at_port: How the hosts of Azure are found at a port of this machine.
    """

    def write(files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            lake.make(f"{PREFIX}/{path}", content)

    def signed(signature: str) -> dict[str, str]:
        return {"AZURE_STORAGE_SAS_TOKEN": f"sv=2026-01-01&sp=rcwd&sig={quote(signature)}"}

    uri = f"abfss://{FILE_SYSTEM}@{LAKE_HOSTS[0]}/{quote(PREFIX)}"
    here = at_port(lake.port)
    return Shelf(
        uri,
        {**here, **signed(SIGNATURE)},
        write,
        lambda: below(lake.files),
        port=lake.port,
        at_port=lambda port: {**at_port(port), **signed(SIGNATURE)},
        refused={**here, **signed("hidden")},
        missing=(uri.replace(FILE_SYSTEM, "missing"), {**here, **signed(SIGNATURE)}),
    )


def below(names: Iterable[str]) -> set[str]:
    """Names relative to the prefix; those that are not below it get a slash in front."""
    return {
        name.removeprefix(f"{PREFIX}/") if name.startswith(f"{PREFIX}/") else f"/{name}"
        for name in names
    }


def in_threads(work: Callable[[T], object], things: Iterable[T]) -> None:
    """Do many small things that wait for a server."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, things))
