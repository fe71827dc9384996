"""Deployments and the endpoints where they are."""

from __future__ import annotations

import re
from typing import Any

from .errors import AEException, AEUnexpectedResponseError
from .projects import Projects
from .records import Record
from .session import pause

# Not anchored at its end, so that it lets more pass than it seems.
_ENDPOINT = re.compile(r"[A-Za-z0-9-]+")


class Deployments(Projects):
    """What a user does with deployments."""

    def complete_deployment(self, records: list[Record]) -> list[Record]:
        """The project's id, and the endpoint: the first label of the address."""
        for record in records:
            record["project_id"] = "a0-" + record["project_url"].rsplit("/", 1)[-1]
            if record.get("url"):
                record["endpoint"] = record["url"].split("/", 3)[2].split(".", 1)[0]
        return records

    def deployment_list(
        self, filter: Any = (), collaborators: bool = False, format: str | None = None, **_: Any
    ) -> Any:
        """All that the user may see."""
        found = self.fetch("deployments", filters=filter)
        if collaborators:
            for record in found:
                self._join_collaborators(record)
        return self.shaped(found, format)

    def deployment_info(self, ident: Any, format: str | None = None, **_: Any) -> Any:
        """One of them."""
        return self.shaped(self.resolve("deployment", ident), format)

    def deployment_start(
        self,
        ident: Any,
        name: str | None = None,
        endpoint: str | None = None,
        command: str | None = None,
        resource_profile: str | None = None,
        public: bool = False,
        collaborators: list[Record] | None = None,
        wait: bool = False,
        stop_on_error: bool = False,
        skip_endpoint_test: bool = False,
        format: str | None = None,
        **_: Any,
    ) -> Any:
        """A new one.

        Raises:
            AEException: The endpoint is no name or taken, or the deployment did not start.
        """
        revision = self.revision(ident, keep_latest=True)
        told = {
            "source": revision["url"],
            "revision": revision["name"],
            "resource_profile": resource_profile or revision["_project"]["resource_profile"],
            "command": command or revision["commands"].split(",", 1)[0],
            "public": bool(public),
            "target": "deploy",
        }
        if name:
            told["name"] = name
        if endpoint:
            if not _ENDPOINT.match(endpoint):
                raise AEException(f"Invalid endpoint: {endpoint}")
            if not skip_endpoint_test and self._is_taken(endpoint):
                raise AEException(f'endpoint "{endpoint}" is already in use')
            told["static_endpoint"] = endpoint
        path = f"projects/{revision['project_id']}/deployments"
        record = self.fetch(path, method="post", json=told)
        number = record["id"]
        if record.get("error"):
            raise AEException(f"Error starting deployment: {record['error']['message']}")
        if collaborators:
            self._set_collaborators(number, collaborators)
        if wait or stop_on_error:
            record = self._follow(number, record, stop_on_error)
        return self.shaped(record, format)

    def _is_taken(self, endpoint: str) -> bool:
        """Whether anything answers there; an answer that is tried again ends in a traceback."""
        try:
            self.send("head", "/_errors/404.html", subdomain=endpoint)
        except AEUnexpectedResponseError:
            return False
        return True

    def _follow(self, number: str, record: Record, stop_on_error: bool) -> Record:
        while record["state"] in ("initial", "starting"):
            pause(2)
            record = self.fetch(f"deployments/{number}", "deployment")
        if record["state"] != "started":
            if stop_on_error:
                self.deployment_stop(number)
            raise AEException(f"Error completing deployment start: {record['status_text']}")
        return record

    def deployment_restart(
        self,
        ident: Any,
        wait: bool = False,
        stop_on_error: bool = False,
        format: str | None = None,
        **_: Any,
    ) -> Any:
        """Stop it, wait until it is gone, start one like it."""
        record = self.resolve("deployment", ident)
        collaborators = self.deployment_collaborator_list(record)
        endpoint: str | None = record.get("endpoint")
        if endpoint and record["id"].endswith(endpoint):
            endpoint = None
        self.deployment_stop(record)
        pause(2)
        while self.deployment_list(filter=(f"id={record['id']}",)):
            pass  # the real program does not wait between two looks either
        return self.deployment_start(
            f"{record['project_id']}:{record['revision']}",
            name=record["name"],
            endpoint=endpoint,
            command=record["command"],
            resource_profile=record["resource_profile"],
            public=record["public"],
            collaborators=collaborators,
            wait=wait,
            stop_on_error=stop_on_error,
            skip_endpoint_test=True,
            format=format,
        )

    def deployment_patch(self, ident: Any, format: str | None = None, **changes: Any) -> Any:
        """Change what is different."""
        record = self.resolve("deployment", ident)
        told = {
            name: value
            for name, value in changes.items()
            if value is not None and value != record[name]
        }
        if "_revision" in ident:
            project = {"id": record["project_id"], "_record_type": "project"}
            revision = self.revision({**project, "_revision": ident["_revision"]})
            if record["revision"] != revision["name"]:
                told["revision"] = revision["name"]
        if told:
            self.send("patch", f"deployments/{record['id']}", json=told)
            record = self.resolve("deployment", record["id"])
        return self.shaped(record, format)

    def deployment_stop(self, ident: Any, format: str | None = None) -> None:
        """End it, which removes its record."""
        self.send("delete", f"deployments/{self.resolve('deployment', ident)['id']}")

    def deployment_logs(self, ident: Any, which: str = "app", format: str | None = None) -> Any:
        """One of its logs."""
        number = self.resolve("deployment", ident)["id"]
        return self.shaped(self.send("get", f"deployments/{number}/logs")[which], format)

    def deployment_token(self, ident: Any, format: str | None = None) -> Any:
        """What programs need to get in."""
        number = self.resolve("deployment", ident)["id"]
        told = self.send("post", f"deployments/{number}/token")
        return self.shaped(told["token"], format)

    def deployment_collaborator_list(self, ident: Any, format: str | None = None) -> Any:
        """Who may look at it."""
        number = self.resolve("deployment", ident)["id"]
        return self.shaped(self.fetch(f"deployments/{number}/collaborators"), format)

    def deployment_collaborator_info(
        self, ident: Any, userid: str, format: str | None = None
    ) -> Any:
        """One of them.

        Raises:
            AEException: No such collaborator.
        """
        found = [each for each in self.deployment_collaborator_list(ident) if each["id"] == userid]
        if not found:
            raise AEException(f"No collaborators found matching id={userid}")
        return self.shaped(found[0], format)

    def _set_collaborators(self, ident: Any, told: list[Record], format: str | None = None) -> Any:
        number = self.resolve("deployment", ident)["id"]
        answer = self.send("put", f"deployments/{number}/collaborators", json=list(told))
        if answer["action"]["error"] or "collaborators" not in answer:
            raise AEException(f"Unexpected error adding collaborator: {answer}")
        return self.shaped(self.finish("collaborator", answer["collaborators"]), format)

    def deployment_collaborator_add(
        self, ident: Any, userid: tuple[str, ...], group: bool = False, format: str | None = None
    ) -> Any:
        """Let users or groups in; who is there already is removed first."""
        record = self.resolve("deployment", ident)
        before = self.deployment_collaborator_list(record)
        kept = [each for each in before if each["id"] not in userid]
        if len(kept) != len(before):
            self._set_collaborators(record, kept)
        kind = "group" if group else "user"
        added = [{"id": each, "type": kind, "permission": "r"} for each in userid]
        return self._set_collaborators(record, [*kept, *added], format)

    def deployment_collaborator_remove(
        self, ident: Any, userid: tuple[str, ...], format: str | None = None
    ) -> Any:
        """Keep users or groups out.

        Raises:
            AEException: One of them is no collaborator; nobody is removed.
        """
        record = self.resolve("deployment", ident)
        before = self.deployment_collaborator_list(record)
        missing = set(userid) - {each["id"] for each in before}
        if missing:
            raise AEException(f"Collaborator(s) not found: {', '.join(missing)}")
        kept = [each for each in before if each["id"] not in userid]
        return self._set_collaborators(record, kept, format)

    def complete_endpoint(self, records: list[Record]) -> list[Record]:
        """What is deployed there, and of which project; those of other people are left out."""
        deployed = {each.get("endpoint"): each for each in self.deployment_list()}
        projects = {each["id"]: each for each in self.project_list()}
        found = []
        for record in records:
            deployment = deployed.get(record["id"])
            record["name"] = record["deployment_id"] = ""
            if deployment is not None:
                record["name"], record["deployment_id"] = deployment["name"], deployment["id"]
                record["project_url"] = deployment["project_url"]
                record["owner"], record["_deployment"] = deployment["owner"], deployment
            record["project_id"] = "a0-" + record["project_url"].rsplit("/", 1)[-1]
            project = projects.get(record["project_id"])
            if project is not None:
                record["project_name"], record["_project"] = project["name"], project
                record.setdefault("owner", project["owner"])
                found.append(record)
        return found

    def endpoint_list(self, filter: Any = (), format: str | None = None) -> Any:
        """The static ones."""
        told = self.send("get", "/platform/deploy/api/v1/apps/static-endpoints")["data"]
        return self.shaped(self.finish("endpoint", told, filter), format)

    def endpoint_info(self, ident: Any, format: str | None = None) -> Any:
        """One of them."""
        return self.shaped(self.resolve("endpoint", ident), format)
