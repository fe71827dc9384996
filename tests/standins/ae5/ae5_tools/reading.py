"""Records of a cluster as the program knows them: completed, marked with their kind, chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .accounts import SignedIn
from .errors import AEException
from .records import Identifier, Record, Records, filter_for, select, the_one
from .session import pause
from .tables import shape


class Reader(SignedIn):
    """A user who looks at records; each kind of them is completed by a method `complete_KIND`."""

    def shaped(self, found: Any, form: str | None) -> Any:
        """Ready to be printed."""
        return shape(found, form)

    def finish(
        self, kind: str, told: Any, filters: Sequence[str] = (), project: Record | None = None
    ) -> Any:
        """Records as they came, completed; one stays one.

        Raises:
            ValueError: A filter asks for a field that the records do not have.
        """
        if isinstance(told, dict) and "data" in told:
            told = told["data"]
        is_one = isinstance(told, dict)
        records: list[Record] = [told] if is_one else told
        complete = getattr(self, f"complete_{kind}", None)
        if complete is not None:
            records = complete(records)
        for record in records:
            record["_record_type"] = kind
        found = records or Records(kind)
        if found and filters:
            texts = [part for text in filters for part in text.split(",")]
            found = select(found, texts)
        if kind == "revision":
            for record in found:
                record["_project"] = project
        return (found[0] if found else None) if is_one else found

    def fetch(
        self,
        path: str,
        kind: str = "",
        filters: Sequence[str] = (),
        *,
        method: str = "get",
        project: Record | None = None,
        is_needed: bool = False,
        **request: Any,
    ) -> Any:
        """The records at a path, whose last word says what they are unless `kind` does.

        Raises:
            AEException: There are none, although `is_needed`.
        """
        kind = kind or path.rsplit("/", 1)[-1].rstrip("s")
        for _ in range(20):
            told = self.send(method, path, **request)
            if told or not is_needed:
                return self.finish(kind, told, filters, project)
            pause(0.25)
        raise AEException(f"Unexpected empty {kind} recordset")

    def resolve(self, kind: str, ident: Any) -> Record:
        """The one record that an identifier, a filter or a record stands for.

        Raises:
            AEException: There is none, or there are several.
        """
        if isinstance(ident, dict) and ident.get("_record_type") == kind:
            return ident
        if isinstance(ident, Identifier):
            filters: tuple[str, ...] = tuple(ident.conditions(kind).split(","))
        else:
            filters = ident if isinstance(ident, tuple) else filter_for(kind, ident)
        found = getattr(self, f"{kind}_list")(filter=filters)
        return the_one(found, filters, kind)
