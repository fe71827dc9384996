"""The documents of an archive: `docs/design/backup.md`. Pure."""

from collections.abc import Mapping
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mlflow_server.backup.names import FORMAT, ID, DatabaseName, Scope
from mlflow_server.errors import BadInputError
from mlflow_server.store.revision import VERSION_TABLE
from mlflow_server.store.tables import Kind

_TABLE_FILE = r"tables/[a-z]+/[A-Za-z0-9_.~%-]+\.jsonl\.gz"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Checksum = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
BackupId = Annotated[str, StringConstraints(pattern=rf"^{ID}$")]
# No more than databases and disks count up to.
Count = Annotated[int, Field(ge=0, lt=2**63)]

T = TypeVar("T")


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("has something twice")
    return values


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ColumnEntry(_Document):
    """A column of a table, in the order of its rows' values."""

    name: str
    kind: Kind


class TableEntry(_Document):
    """A table of a database.

    Args:
        name: Its name.
        file: Where its rows are, relative to the backup.
        sha256: Of that file.
        rows: How many there are.
        checksum: Of all rows: see `store.tables.Checksum`.
        columns: What a row has.
        key: Names of the columns of its primary key.
        known: Whether MLflow has a table of that name.
    """

    name: str
    file: Annotated[str, StringConstraints(pattern=rf"^{_TABLE_FILE}$")]
    sha256: Sha256
    rows: Count
    checksum: Checksum
    columns: Annotated[tuple[ColumnEntry, ...], Field(min_length=1)]
    key: Annotated[tuple[str, ...], AfterValidator(_unique)]
    known: bool

    @model_validator(mode="after")
    def _has_own_columns(self) -> Self:
        names = _unique(tuple(column.name for column in self.columns))
        if not set(self.key) <= set(names):
            raise ValueError("the key is of other columns")
        if self.name == VERSION_TABLE or self.name.startswith("sqlite_"):
            raise ValueError("no table of a store is called so")
        if "\0" in "".join((self.name, *names)):
            raise ValueError("nothing is called so")
        return self


class DatabaseEntry(_Document):
    """A database.

    Args:
        dialect: What it was: `sqlite`, `postgresql` or `mysql`.
        revision: Its schema's; None when it has no tracking store.
        auth_revision: Of the tables of basic authentication; None without any.
        tables: Parents before children.
    """

    dialect: str
    revision: str | None
    auth_revision: str | None = None
    tables: tuple[TableEntry, ...]

    @model_validator(mode="after")
    def _has_tables_once(self) -> Self:
        _unique(tuple(table.name for table in self.tables))
        return self


class PackEntry(_Document):
    """A tar file of artifacts.

    Args:
        file: Relative to the folder of packs.
        size_bytes: How long it is.
        sha256: Of all of it.
    """

    file: Annotated[str, StringConstraints(pattern=rf"^{ID}/[0-9]{{5,}}\.tar$")]
    size_bytes: Count
    sha256: Sha256


class ArtifactsEntry(_Document):
    """The artifacts.

    Args:
        destination: Where they were, without credentials.
        root: What `mlflow-artifacts:` stood for, in the form that locations are compared in.
        files: How many.
        size_bytes: Of all of them.
        stored_files: How many of them this backup read and stored.
        stored_bytes: And how much that was.
    """

    destination: str
    root: str
    files: Count
    size_bytes: Count
    stored_files: Count
    stored_bytes: Count


class Manifest(_Document):
    """What a backup is made of.

    Args:
        format: Of the archive; readers refuse a larger one than theirs.
        id: Name of its folder.
        label: What its maker called it.
        created_at: When its maker began.
        finished_at: When everything else was written.
        release: Of this project.
        mlflow_version: Of the MLflow that was installed beside it.
        scope: What was stored anew.
        databases: By what they are: `backend`, `registry`, `auth`.
        artifacts: None when there are none in it.
        packs: All that its artifacts are in, also those of earlier backups.
        warnings: What whoever restores has to know.
    """

    format: int
    id: BackupId
    label: str | None
    created_at: AwareDatetime
    finished_at: AwareDatetime
    release: str
    mlflow_version: str
    scope: Scope
    databases: Mapping[DatabaseName, DatabaseEntry]
    artifacts: ArtifactsEntry | None
    packs: tuple[PackEntry, ...]
    warnings: tuple[str, ...]

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if not self.databases:
            raise ValueError("there is no database in it")
        _unique(tuple(pack.file for pack in self.packs))
        _unique(tuple(t.file for database in self.databases.values() for t in database.tables))
        return self

    def without_tables(self) -> Self:
        """The same, with less in memory."""
        databases = {
            name: entry.model_copy(update={"tables": ()}) for name, entry in self.databases.items()
        }
        return self.model_copy(update={"databases": databases})

    def as_json(self) -> bytes:
        """The document's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def read_manifest(content: bytes, shown: str) -> Manifest:
    """Understand a manifest, whoever wrote it.

    Args:
        content: Of the file.
        shown: Which file, for messages.

    Raises:
        BadInputError: It is none, or one of a newer format.
    """
    try:
        head = _Head.model_validate_json(content)
        if head.format > FORMAT:
            raise BadInputError(
                f"{shown}: the archive has format {head.format}, this release reads up to {FORMAT}",
                hint="use the release that wrote it, or a newer one",
            )
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        raise BadInputError(f"{shown}: is damaged: not the manifest of a backup") from None
    return manifest


class _Head(_Document):
    format: Annotated[int, Field(ge=1)]
