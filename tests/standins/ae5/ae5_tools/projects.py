"""Projects, their revisions, endpoints and resource profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import AEException
from .packing import pack
from .reading import Reader
from .records import Identifier, Record, the_one
from .session import pause

_SUFFIXES = (".tar.gz", ".tar.bz2", ".zip", ".tgz", ".tbz", ".tbz2", ".tz2", ".txz")
_ALL = 999_999


class Projects(Reader):
    """What a user does with projects."""

    def project_list(
        self, filter: Any = (), collaborators: bool = False, format: str | None = None
    ) -> Any:
        """All that the user may see."""
        found = self.fetch("projects", filters=filter)
        if collaborators:
            for record in found:
                self._join_collaborators(record)
        return self.shaped(found, format)

    def _join_collaborators(self, record: Record) -> None:
        kind, number = record["_record_type"], record["id"]
        found = self.fetch(f"{kind}s/{number}/collaborators")
        record["collaborators"] = ", ".join(each["id"] for each in found)
        record["_collaborators"] = list(found)

    def project_info(
        self,
        ident: Any,
        collaborators: bool = False,
        format: str | None = None,
        retry: bool = False,
    ) -> Any:
        """One of them; with `retry`, wait until the cluster knows it."""
        while True:
            try:
                record = self.resolve("project", ident)
                break
            except AEException as err:
                if not (retry and str(err).startswith("No projects found matching id")):
                    raise
            pause(0.25)
        if collaborators:
            self._join_collaborators(record)
        return self.shaped(record, format)

    def project_patch(self, ident: Any, format: str | None = None, **changes: Any) -> Any:
        """Another name, editor or profile."""
        record = self.resolve("project", ident)
        told = {name: value for name, value in changes.items() if value is not None}
        if told:
            self.send("patch", f"projects/{record['id']}", json=told)
            record = self.resolve("project", record["id"])
        return self.shaped(record, format)

    def project_delete(self, ident: Any, format: str | None = None) -> None:
        """Remove it."""
        self.send("delete", f"projects/{self.resolve('project', ident)['id']}")

    def project_activity(
        self,
        ident: Any,
        limit: int | None = None,
        all: bool = False,
        latest: bool = False,
        format: str | None = None,
    ) -> Any:
        """What was done with it, the newest first."""
        number = self.resolve("project", ident)["id"]
        if all and latest:
            raise AEException("Cannot specify both all=True and latest=True")
        if limit is None:
            limit = 1 if latest else _ALL if all else 10
        elif all and limit > 0:
            raise AEException(f"Cannot specify both all=True and limit={limit}")
        elif latest and limit > 1:
            raise AEException(f"Cannot specify both latest=True and limit={limit}")
        asked = {"sort": "-updated", "page[size]": limit if limit > 0 else _ALL}
        found = self.fetch(f"projects/{number}/activity", params=asked)
        return self.shaped(found[0] if latest else found, format)

    def project_part(self, ident: Any, part: str, format: str | None = None) -> Any:
        """Its deployments, jobs, runs or collaborators."""
        number = self.resolve("project", ident)["id"]
        return self.shaped(self.fetch(f"projects/{number}/{part}"), format)

    def project_upload(
        self, archive: str, name: str, tag: str, wait: bool = True, format: str | None = None
    ) -> Any:
        """A new project.

        Raises:
            RuntimeError: The cluster refuses it. Not an AEException: the program shows a traceback.
        """
        path = Path(archive)
        if not name:
            name = path.resolve().name
            suffix = next((each for each in _SUFFIXES if name.endswith(each)), "")
            name = name.removesuffix(suffix)
        if path.is_dir() and not (path / "anaconda-project.yml").is_file():
            raise RuntimeError("Project directory must include anaconda-project.yml")
        told = {"name": name} | ({"tag": tag} if tag else {})
        shown = f"{archive}.tar.gz" if path.is_dir() else archive
        # One file object for all attempts: after a sign-in half way it is empty.
        with pack(path) if path.is_dir() else path.open("rb") as file:
            record = self.fetch(
                "projects/upload",
                "project",
                method="post",
                files={b"project_file": (shown, file)},
                data=told,
            )
        if record.get("error"):
            raise RuntimeError(f"Error uploading project: {record['error']['message']}")
        if wait:
            self._wait(record)
        if record["action"]["error"]:
            raise RuntimeError(f"Error processing upload: {record['action']['message']}")
        return self.project_info(record["id"], format=format, retry=True) if wait else None

    def _wait(self, record: Record) -> None:
        """Look at the activity until the action of a record is done."""
        action, size = record["action"], 1
        number = record.get("project_id", record["id"])
        while not (action["done"] or action["error"]):
            pause(1)
            asked = {"sort": "-updated", "page[size]": size}
            told = self.send("get", f"projects/{number}/activity", params=asked)
            found = [each for each in told["data"] if each["id"] == action["id"]]
            action = found[0] if found else action
            size += not found
        record["action"] = action

    def complete_revision(self, records: list[Record]) -> list[Record]:
        """The commands by name, and which is the latest."""
        for place, record in enumerate(records):
            record["project_id"] = "a0-" + record["url"].rsplit("/", 3)[1]
            record["latest"] = place == 0
            commands = record["commands"]
            for each in commands:
                each["_record_type"] = "command"
            record["commands"] = ", ".join(each["id"] for each in commands)
            record["_commands"] = commands
        return records

    def _revisions(self, ident: Any, filters: tuple[str, ...] = (), latest: Any = False) -> Any:
        """The revisions that an identifier allows.

        Args:
            ident: Of the project, perhaps with a revision.
            filters: More conditions.
            latest: Only the newest, unless the identifier has another; `keep`: called `latest`.
        """
        if isinstance(ident, tuple):
            revision = "".join(each[9:] for each in ident if each.startswith("revision="))
            ident = tuple(each for each in ident if not each.startswith("revision="))
        elif isinstance(ident, dict):
            revision = ident.get("_revision") or ""
        else:
            ident = ident if isinstance(ident, Identifier) else Identifier.parse(ident)
            revision = ident.revision
        if revision == "latest":
            latest, revision = latest or True, ""
        elif revision:
            latest = False
        project = self.resolve("project", ident)
        if latest:
            filters = ("latest=True", *filters)
        elif revision and revision != "*":
            filters = (f"name={revision}", *filters)
        path = f"projects/{project['id']}/revisions"
        found = self.fetch(path, filters=filters, project=project, is_needed=True)
        if latest == "keep" and found:
            found[0]["name"] = "latest"
        return found, filters

    def revision(self, ident: Any, keep_latest: bool = False) -> Record:
        """One revision, the newest by default; `keep_latest`: then called `latest`."""
        found, filters = self._revisions(ident, latest="keep" if keep_latest else True)
        return the_one(found, filters, "revision")

    def revision_list(self, ident: Any, filter: Any = (), format: str | None = None) -> Any:
        """The newest first."""
        return self.shaped(self._revisions(ident, tuple(filter))[0], format)

    def revision_info(self, ident: Any, format: str | None = None) -> Any:
        """One of them."""
        return self.shaped(self.revision(ident), format)

    def revision_commands(self, ident: Any, format: str | None = None) -> Any:
        """The commands of one."""
        return self.shaped(self.revision(ident)["_commands"], format)

    def project_download(
        self, ident: Any, filename: str | None = None, format: str | None = None
    ) -> str | None:
        """Its archive as a file; returns the name, unless it was given."""
        record = self.revision(ident, keep_latest=True)
        project, is_latest = record["_project"], record["name"] == "latest"
        revision = "latest" if is_latest else record["id"]
        path = f"projects/{project['id']}/revisions/{revision}/archive"
        made = f"{project['name']}{'' if is_latest else '-' + record['name']}.tar.gz"
        Path(filename or made).write_bytes(self.send("get", path, form="blob"))
        return None if filename else made

    def complete_resource_profile(self, records: list[Record]) -> list[Record]:
        """Their numbers, taken out of the description."""
        for record in records:
            record["description"], _, numbers = record["description"].rpartition(" (")
            for part in numbers.rstrip(")").split(", "):
                name, _, value = part.partition(": ")
                record[name.lower()] = value
            record.setdefault("gpu", 0)
        return records

    def resource_profile_list(self, filter: Any = (), format: str | None = None) -> Any:
        """What one may choose from."""
        told = self.send("get", "projects/actions", params={"q": "create_action"})
        found = self.finish("resource_profile", told[0]["resource_profiles"], filter)
        return self.shaped(found, format)

    def resource_profile_info(self, ident: Any, format: str | None = None) -> Any:
        """One of them."""
        return self.shaped(self.resolve("resource_profile", ident), format)
