"""What `gc` has to do with a store, by the rules of docs/design/gc.md, without a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from tests.support.gc_random_store import Entity, Experiment, Store, Trace, Version, place_of

Kind = str
KINDS: tuple[Kind, ...] = ("run", "logged_model", "trace", "experiment")
HOURS = {"0s": 0, "7d": 7 * 24, "30d": 30 * 24}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        older_than: As the option has it, one of `HOURS`.
        run_ids: Only these runs; with the two below, everything when all are empty.
    """

    older_than: str = "30d"
    include_referenced: bool = False
    include_unknown_age: bool = False
    run_ids: tuple[str, ...] = ()
    model_ids: tuple[str, ...] = ()
    experiment_ids: tuple[str, ...] = ()

    @property
    def named(self) -> frozenset[str]:
        """All ids that are named."""
        return frozenset((*self.run_ids, *self.model_ids, *self.experiment_ids))

    def options(self) -> list[str]:
        """The same on a command line."""
        options = ["--older-than", self.older_than]
        options += ["--include-referenced"] * self.include_referenced
        options += ["--include-unknown-age"] * self.include_unknown_age
        for name, ids in (
            ("--run-ids", self.run_ids),
            ("--logged-model-ids", self.model_ids),
            ("--experiment-ids", self.experiment_ids),
        ):
            options += [name, ",".join(ids)] if ids else []
        return options


@dataclass(frozen=True)
class Verdict:
    """What goes and what stays.

    Args:
        gone: Ids by kind.
        staying: Of what was deleted and asked for, why it stays: all reasons there are.
    """

    gone: Mapping[Kind, frozenset[str]]
    staying: Mapping[Kind, Mapping[str, frozenset[str]]]

    @property
    def all_gone(self) -> frozenset[str]:
        """Every id that goes."""
        return frozenset().union(*self.gone.values())


def judge(store: Store, request: Request) -> Verdict:
    """Decide about everything in a store."""
    court = _Court(store, request)
    experiments = {str(each.id): court.against_experiment(each) for each in store.experiments}
    asked = {str(each.id) for each in store.experiments if each.deleted and court.wants(each.id)}
    gone = frozenset(key for key in asked if not experiments[key])
    entities = {"run": store.runs, "logged_model": store.models, "trace": store.traces}
    staying = {"experiment": {key: experiments[key] for key in asked - gone}}
    going = {"experiment": gone}
    for kind, members in entities.items():
        going[kind] = frozenset(
            each.id for each in members if str(each.experiment) in gone or court.goes_alone(each)
        )
        staying[kind] = {
            each.id: reasons
            for each in members
            if each.deleted and court.asks_about(each) and each.id not in going[kind]
            # What would go alone stays only because its experiment does, which is told there.
            if (reasons := court.against(each))
        }
    return Verdict(going, staying)


def needed_files(store: Store) -> frozenset[str]:
    """Paths of the files that live model versions are made of.

    By itself, and wider than `judge`: whatever a version's addresses lead to when MLflow follows
    them, whether it belongs to something that was deleted or not.
    """
    files = [file for file in store.files() if file.owner is not None and not file.is_folder]
    found: set[str] = set()
    for version in filter(attrgetter("is_live"), store.versions):
        named = {version.run_id} if version.run_id else set()
        for address in _addresses(version):
            if match := re.match(r"(?:runs|models):/+([^/]+)", address):
                named.add(match[1])
            if place := place_of(address):
                found |= {file.path for file in files if _lies_in(file.path, place)}
        # `runs:/ID/name` leads to logged models of that run, where they are in its experiment
        # (MLflow 3.17.2 store/artifact/runs_artifact_repo.py).
        beside = {(run.id, run.experiment) for run in store.runs if run.id in named}
        named |= {
            model.id
            for model in store.models
            if (model.source_run, model.experiment) in beside and not model.deleted
        }
        found |= {file.path for file in files if file.owner in named}
    return frozenset(found)


class _Court:
    def __init__(self, store: Store, request: Request) -> None:
        self._store, self._request = store, request
        self._live = [version for version in store.versions if version.is_live]

    def wants(self, entity_id: str | int) -> bool:
        """Whether it was asked for."""
        return not self._request.named or str(entity_id) in self._request.named

    def asks_about(self, entity: Entity) -> bool:
        """Whether it or its experiment was asked for."""
        return self.wants(entity.id) or self.wants(entity.experiment)

    def goes_alone(self, entity: Entity) -> bool:
        """Whether it goes although its experiment stays."""
        return entity.deleted and self.wants(entity.id) and not self.against(entity)

    def against(self, entity: Entity) -> frozenset[str]:
        """Why a deleted one stays."""
        reasons = {*self._too_young(entity.age_h)}
        if self._is_referenced(entity):
            reasons.add("referenced")
        return frozenset(reasons)

    def against_experiment(self, experiment: Experiment) -> frozenset[str]:
        """Why a deleted one stays."""
        reasons = {*self._too_young(experiment.age_h)}
        for run in self._store.runs:
            if run.experiment == experiment.id and not run.deleted:
                reasons.add("holds_active_run")
            elif run.experiment == experiment.id and self.against(run):
                reasons.add("holds_kept")
        # Active models and traces go along, but not with files that a version needs.
        for entity in (*self._store.runs, *self._store.models, *self._store.traces):
            if entity.experiment == experiment.id and self._is_referenced(entity):
                reasons.add("holds_kept")
        if "guardrail" in experiment.extras:
            reasons.add("holds_scorer")
        return frozenset(reasons)

    def _too_young(self, age_h: int | None) -> Iterator[str]:
        if age_h is None and not self._request.include_unknown_age:
            yield "unknown_age"
        if age_h is not None and age_h < HOURS[self._request.older_than]:
            yield "younger"

    def _is_referenced(self, entity: Entity) -> bool:
        if self._request.include_referenced:
            return False
        return any(_refers(version, entity) for version in self._live)


def _refers(version: Version, entity: Entity) -> bool:
    if entity.id == version.run_id:
        return True
    mine = {place for each in (entity.location, entity.archive) if (place := place_of(each))}
    for address in _addresses(version):
        # Runs and models are named by their ids; traces can only be pointed into.
        if entity.id in re.split(r"[:/]+", address) and not isinstance(entity, Trace):
            return True
        place = place_of(address)
        if place and any(_lies_in(place, each) or _lies_in(each, place) for each in mine):
            return True
    return False


def _addresses(version: Version) -> Iterable[str]:
    return filter(None, (version.source, version.storage_location))


def _lies_in(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
