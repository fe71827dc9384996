"""Open what artifacts lie in: the destination, and what rows name beside it."""

from collections.abc import Mapping
from pathlib import Path

from mlflow_server.artifacts.files import Files, open_files
from mlflow_server.artifacts.locations import root_of
from mlflow_server.errors import BadInputError
from mlflow_server.uris import ArtifactScheme, ArtifactUri, parse_artifacts_destination


class Places:
    """Files of locations, each folder or bucket opened once.

    Args:
        destination: Where a server keeps artifacts.
        environ: Where credentials are.
    """

    def __init__(self, destination: ArtifactUri, environ: Mapping[str, str]) -> None:
        self.destination = destination
        self.root = root_of(destination)
        self._environ = environ
        self._opened: dict[str, Files] = {}

    def find(self, plain: str) -> tuple[Files, str]:
        """What a location lies in, and the way from there to it.

        Args:
            plain: In the form that locations are compared in.

        Raises:
            BadInputError: It cannot be meant.
            OpsError: It cannot be opened.
        """
        if self.is_inside(plain):
            return self._open(self.root, self.destination), plain[len(self.root) :].strip("/")
        try:
            uri = parse_artifacts_destination(plain, plugin_schemes=frozenset())
        except ValueError as err:
            raise BadInputError(f"the location {err}") from None
        if uri.scheme is ArtifactScheme.LOCAL:
            path = Path(plain)  # decoded already
            if not path.is_absolute():
                raise BadInputError("the location is a relative path: nobody can tell to what")
            return self._open(plain, ArtifactUri.of_folder(path)), ""
        if uri.scheme in (ArtifactScheme.OTHER, ArtifactScheme.PROXY):
            kind = plain.partition(":")[0]
            raise BadInputError(f"artifacts at {kind}: cannot be read here")
        bucket = f"{plain.partition('://')[0]}://{uri.bucket}"
        whole = parse_artifacts_destination(bucket, plugin_schemes=frozenset())
        return self._open(bucket, whole), plain[len(bucket) :].strip("/")

    def is_inside(self, plain: str) -> bool:
        """True for a location at the destination."""
        return plain == self.root or plain.startswith(self.root.rstrip("/") + "/")

    def close(self) -> None:
        """Give back what was opened."""
        for files in self._opened.values():
            files.close()

    def _open(self, key: str, uri: ArtifactUri) -> Files:
        if key not in self._opened:
            subject = (
                "MLFLOW_ARTIFACTS_DESTINATION" if key == self.root else f"artifacts at {uri.shown}"
            )
            self._opened[key] = open_files(uri, self._environ, subject=subject)
        return self._opened[key]
