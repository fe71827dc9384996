"""What `gc` was asked to do. Pure."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One garbage collection.

    Args:
        older_than_s: Only what was deleted longer ago than this, seconds; also of named ids.
        run_ids: With any of the four lists given, exactly these are considered.
        experiment_ids: Experiments, with everything in them.
        logged_model_ids: Logged models.
        job_ids: Jobs that have ended.
        workspace: Only of this workspace; None for the whole store.
        jobs: Also jobs that ended longer ago than the TTL.
        deleted_versions: Also the rows of deleted model versions.
        include_referenced: Also what live model versions need.
        include_unknown_age: Also runs that were deleted at an unknown time.
        allow_missing_destination: A destination that is not there is no unmounted volume.
        offline: Nobody else uses the store: SQLite may be locked for as long as it takes.
        max_runs: Begin no further batch once so many runs are gone.
        max_seconds: Begin nothing further after so many seconds.
    """

    older_than_s: float
    run_ids: Collection[str] = ()
    experiment_ids: Collection[int] = ()
    logged_model_ids: Collection[str] = ()
    job_ids: Collection[str] = ()
    workspace: str | None = None
    jobs: bool = False
    deleted_versions: bool = False
    include_referenced: bool = False
    include_unknown_age: bool = False
    allow_missing_destination: bool = False
    offline: bool = False
    max_runs: int | None = None
    max_seconds: float | None = None

    @property
    def names_ids(self) -> bool:
        """True when ids were given: then nothing else is considered."""
        return bool(self.run_ids or self.experiment_ids or self.logged_model_ids or self.job_ids)

    @property
    def wants_jobs(self) -> bool:
        """True when jobs are collected as well."""
        return self.jobs or bool(self.job_ids)
