"""List, read and write the files of a folder or of a prefix of a bucket, whichever it is."""

from mlflow_server.artifacts.content import Source
from mlflow_server.artifacts.files.files import File, Files, Folder, OnSkip, Reader
from mlflow_server.artifacts.files.local import LocalFiles
from mlflow_server.artifacts.files.opening import open_files
from mlflow_server.errors import ChangedError, VanishedError

__all__ = [
    "ChangedError",
    "File",
    "Files",
    "Folder",
    "LocalFiles",
    "OnSkip",
    "Reader",
    "Source",
    "VanishedError",
    "open_files",
]
