"""List, read and write the files of a folder or of a prefix of a bucket, whichever it is."""

from mlflow_server.artifacts.content import ChangedError, Source, VanishedError
from mlflow_server.artifacts.files.files import File, Files, OnSkip, Reader
from mlflow_server.artifacts.files.local import LocalFiles
from mlflow_server.artifacts.files.opening import open_files

__all__ = [
    "ChangedError",
    "File",
    "Files",
    "LocalFiles",
    "OnSkip",
    "Reader",
    "Source",
    "VanishedError",
    "open_files",
]
