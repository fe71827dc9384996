"""What `gc` was asked to do. Pure."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One garbage collection.

    Args:
        older_than_s: Only what was deleted longer ago than this, seconds; also of named ids.
        run_ids: With any of the three lists given, exactly these are considered.
        experiment_ids: Experiments, with everything in them.
        logged_model_ids: Logged models.
        include_referenced: Also what live model versions need.
        include_unknown_age: Also runs that were deleted at an unknown time.
        allow_missing_destination: A destination that is not there is no unmounted volume.
    """

    older_than_s: float
    run_ids: Collection[str] = ()
    experiment_ids: Collection[int] = ()
    logged_model_ids: Collection[str] = ()
    include_referenced: bool = False
    include_unknown_age: bool = False
    allow_missing_destination: bool = False

    @property
    def names_ids(self) -> bool:
        """True when ids were given: then nothing else is considered."""
        return bool(self.run_ids or self.experiment_ids or self.logged_model_ids)
