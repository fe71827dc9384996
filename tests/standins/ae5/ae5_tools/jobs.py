"""Jobs and runs."""

from __future__ import annotations

from typing import Any

from .errors import AEException
from .projects import Projects
from .records import Record
from .session import pause

_ENDS = ("completed", "error", "failed")


class Jobs(Projects):
    """What a user does with jobs and runs."""

    def complete_job(self, records: list[Record]) -> list[Record]:
        """The project of each."""
        projects = {each["id"]: each for each in self.fetch("projects")}
        for record in records:
            if record.get("project_url"):
                record["project_id"] = "a0-" + record["project_url"].rsplit("/", 1)[-1]
                record["_project"] = projects.get(record["project_id"], {})
        return records

    complete_run = complete_job

    def job_list(self, filter: Any = (), format: str | None = None) -> Any:
        """All of the user's."""
        return self.shaped(self.fetch("jobs", filters=filter), format)

    def job_info(self, ident: Any, format: str | None = None) -> Any:
        """One of them."""
        return self.shaped(self.resolve("job", ident), format)

    def job_runs(self, ident: Any, format: str | None = None) -> Any:
        """The runs of one."""
        return self.shaped(self.fetch(f"jobs/{self.resolve('job', ident)['id']}/runs"), format)

    def job_run(self, ident: Any, format: str | None = None) -> Any:
        """Run it now; the record comes as it is."""
        return self.shaped(
            self.send("post", f"jobs/{self.resolve('job', ident)['id']}/runs"), format
        )

    def job_delete(self, ident: Any, format: str | None = None) -> None:
        """Remove it."""
        self.send("delete", f"jobs/{self.resolve('job', ident)['id']}")

    def job_pause(self, ident: Any, format: str | None = None) -> Any:
        """Its schedule does not count."""
        path = f"jobs/{self.resolve('job', ident)['id']}/pause"
        return self.shaped(self.fetch(path, "job", method="post"), format)

    def job_unpause(self, ident: Any, format: str | None = None) -> Any:
        """Its schedule counts again."""
        path = f"jobs/{self.resolve('job', ident)['id']}/unpause"
        return self.shaped(self.fetch(path, "job", method="post"), format)

    def job_patch(self, ident: Any, format: str | None = None, **changes: Any) -> Any:
        """As broken as in the real program.

        Raises:
            AttributeError: Something was to be changed.
        """
        record = self.resolve("job", ident)
        names = ("name", "command", "schedule", "resource_profile")
        if any(changes.get(name) and changes[name] != record[name] for name in names):
            raise AttributeError(
                "'AEUserSession' object has no attribute '_patch_record'."
                " Did you mean: '_post_record'?"
            )
        return self.shaped(record, format)

    def job_create(
        self,
        ident: Any,
        schedule: str | None = None,
        name: str | None = None,
        command: str | None = None,
        resource_profile: str | None = None,
        variables: dict[str, str] | None = None,
        run: bool | None = None,
        wait: bool | None = None,
        cleanup: bool = False,
        make_unique: bool | None = None,
        show_run: bool = False,
        format: str | None = None,
    ) -> Any:
        """A new job, perhaps with a first run; whether that fails makes no difference.

        Raises:
            AEException: The cluster refuses it.
            TypeError: No command, a defect of the real program.
            ValueError: Options that contradict each other.
        """
        run = (not schedule or cleanup) if run is None else run
        wait = cleanup if wait is None else wait
        if cleanup and schedule:
            raise ValueError("cannot use cleanup=True with a scheduled job")
        if cleanup and not (run and wait):
            raise ValueError("must specify run=wait=True with cleanup=True")
        revision = self.revision(ident, keep_latest=True)
        project = revision["_project"]
        if not command:
            raise TypeError("string indices must be integers, not 'str'")
        if not name:
            name = f"{command}-{project['name']}"
            make_unique = True if make_unique is None else make_unique
        told = {
            "source": revision["url"],
            "resource_profile": resource_profile or project["resource_profile"],
            "command": command,
            "target": "deploy",
            "schedule": schedule,
            "autorun": run,
            "revision": revision["name"],
            "name": self._unique(name) if make_unique else name,
        }
        if variables:
            told["variables"] = variables
        path = f"projects/{revision['project_id']}/jobs"
        record = self.fetch(path, method="post", json=told)
        if record.get("error"):
            raise AEException(f"Error starting job: {record['error']['message']}")
        if run:
            number = record["id"]
            started = self.fetch(f"jobs/{number}/runs")[-1]
            if wait:
                started = self._follow_run(started)
            if wait and cleanup:
                self.send("delete", f"jobs/{number}")
            record = started if show_run else record
        return self.shaped(record, format)

    def _unique(self, name: str) -> str:
        taken = {each["name"] for kind in ("jobs", "runs") for each in self.send("get", kind)}
        number, found = 0, name
        while found in taken:
            number += 1
            found = f"{name}-{number}"
        return found

    def _follow_run(self, run: Record) -> Record:
        number = run["id"]
        while run["state"] not in _ENDS:
            pause(5)
            run = self.send("get", f"runs/{number}")
        return run

    def run_list(self, filter: Any = (), format: str | None = None, **_: Any) -> Any:
        """All of the user's."""
        return self.shaped(self.fetch("runs", filters=filter), format)

    def run_info(self, ident: Any, format: str | None = None, **_: Any) -> Any:
        """One of them."""
        return self.shaped(self.resolve("run", ident), format)

    def run_log(self, ident: Any, format: str | None = None) -> Any:
        """What it has written; always a text."""
        return self.send("get", f"runs/{self.resolve('run', ident)['id']}/logs")["job"]

    def run_stop(self, ident: Any, format: str | None = None) -> Any:
        """End it."""
        number = self.resolve("run", ident)["id"]
        return self.shaped(self.send("post", f"runs/{number}/stop"), format)

    def run_delete(self, ident: Any, format: str | None = None) -> None:
        """Remove its record."""
        self.send("delete", f"runs/{self.resolve('run', ident)['id']}")
