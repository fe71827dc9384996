"""How hypothesis draws a store, and what to ask of `gc` there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from tests.support.gc_oracle import HOURS, Request
from tests.support.gc_random_store import (
    DESTINATION,
    EXTRAS,
    SECOND,
    Entity,
    Experiment,
    Issue,
    Link,
    Model,
    Run,
    Store,
    Trace,
    Version,
    as_file_uri,
    new_id,
    place_of,
)

# 0 is what Python takes for nothing, 1 is how 10 and 11 begin.
_EXPERIMENTS = (1, 0, 10, 11)
_LOCATIONS = (
    "mlflow-artifacts:/{}",
    "mlflow-artifacts:/team größe/{}",
    f"{SECOND}/shared",
    f"{SECOND}/own {{}}",
    as_file_uri(f"{SECOND}/größe ") + "{}",
    f"{DESTINATION}/{{}}",
    f"file://{DESTINATION}/{{}}",
)
_FILES = ("model/MLmodel", "größe.txt", "a/b/c/d e.bin", "пусто/😀.txt", "artifacts/x", "%41.txt")
# Around the TTLs; -1 is what a host whose clock is ahead wrote. Old first: shrinking ends there.
_AGES_H = (60 * 24, 10 * 24, 3 * 24, 1, -1)
_files = st.one_of(
    st.sampled_from((_FILES[:1], _FILES[:3], ())),
    st.none(),
    st.lists(st.sampled_from(_FILES), unique=True, max_size=len(_FILES)).map(tuple),
)

_mostly_old = st.sampled_from((_AGES_H[0],) * 12 + _AGES_H[1:])
_rarely = st.sampled_from((False,) * 11 + (True,))
_often = st.booleans()


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """A store with one to four experiments."""
    experiments = tuple(
        draw(_experiment(number)) for number in _EXPERIMENTS[: draw(st.integers(1, 4))]
    )
    runs = tuple(
        draw(_run(experiment, number))
        for experiment in experiments
        for number in range(draw(st.integers(0, 4)))
    )
    run_ids = [run.id for run in runs]
    models = tuple(
        draw(_model(experiment, number, run_ids))
        for experiment in experiments
        for number in range(draw(st.integers(0, 3)))
    )
    traces = tuple(
        draw(_trace(experiment, number, run_ids))
        for experiment in experiments
        for number in range(draw(st.integers(0, 2)))
    )
    links: list[Link] = []
    if runs and models:
        kinds = st.sampled_from(("output", "input", "metric"))
        model_ids = st.sampled_from([model.id for model in models])
        drawn = st.builds(Link, kinds, st.sampled_from(run_ids), model_ids)
        links = draw(st.lists(drawn, max_size=6, unique=True))
    issues = draw(st.lists(_issues(experiments, run_ids), max_size=3))
    some = draw(st.integers(0, 3))
    versions = [draw(_version((*runs, *models, *traces))) for _ in range(some)]
    return Store(experiments, runs, models, traces, tuple(links), tuple(issues), tuple(versions))


def requests(store: Store) -> st.SearchStrategy[Request]:
    """What to ask for: mostly everything, else some of what is deleted there."""
    ttl = st.sampled_from(tuple(reversed(HOURS)))
    ids = [
        [str(each.id) for each in members if each.deleted]
        for members in (store.runs, store.models, store.experiments)
    ]
    nothing: st.SearchStrategy[tuple[str, ...]] = st.just(())
    chosen = [
        st.lists(st.sampled_from(some), unique=True).map(tuple) if some else nothing for some in ids
    ]
    everything = st.builds(Request, ttl, _rarely, _rarely)
    return everything | everything | st.builds(Request, ttl, _rarely, _rarely, *chosen)


@st.composite
def _experiment(draw: st.DrawFn, number: int) -> Experiment:
    # Runs with ids of their own may share a folder; two experiments in one place are allowed.
    usual = draw(st.sampled_from((True, True, False)))
    template = _LOCATIONS[0] if usual else draw(st.sampled_from(_LOCATIONS))
    deleted = draw(_often)
    return Experiment(
        id=number,
        location=template.format(number),
        deleted=deleted,
        age_h=draw(_mostly_old | (st.none() if draw(_rarely) else _mostly_old)),
        extras=frozenset(
            each for each in EXTRAS if draw(_rarely if each == "guardrail" else _often)
        ),
        datasets=draw(st.integers(0, 2)),
        orphan=draw(_rarely),
    )


def _lifecycle(draw: st.DrawFn, experiment: Experiment) -> tuple[bool, int | None]:
    """MLflow deletes the runs of an experiment with it; one may be restored alone."""
    deleted = not draw(_rarely) if experiment.deleted else draw(_often)
    return deleted, draw(_mostly_old)


@st.composite
def _run(draw: st.DrawFn, experiment: Experiment, number: int) -> Run:
    deleted, age_h = _lifecycle(draw, experiment)
    run_id = new_id("run", experiment.id, number)
    location = None if draw(_rarely) else f"{experiment.location}/{run_id}/artifacts"
    return Run(
        id=run_id,
        experiment=experiment.id,
        location=location,
        deleted=deleted,
        age_h=None if draw(_rarely) else age_h,
        files=draw(_files) if location else None,
        stray=draw(_rarely),
        parts=draw(st.integers(0, 2)),
        datasets=frozenset(n for n in range(experiment.datasets) if draw(_often)),
    )


@st.composite
def _model(draw: st.DrawFn, experiment: Experiment, number: int, runs: Sequence[str]) -> Model:
    deleted, age_h = _lifecycle(draw, experiment)
    model_id = f"m-{new_id('model', experiment.id, number)}"
    return Model(
        id=model_id,
        experiment=experiment.id,
        location=f"{experiment.location}/models/{model_id}/artifacts",
        deleted=deleted and draw(_often),
        age_h=age_h,
        files=draw(_files),
        parts=draw(st.integers(0, 2)),
        source_run=draw(st.none() | st.sampled_from(runs)) if runs else None,
    )


@st.composite
def _trace(draw: st.DrawFn, experiment: Experiment, number: int, runs: Sequence[str]) -> Trace:
    trace_id = f"tr-{new_id('trace', experiment.id, number)}"
    location = None
    if not draw(_rarely):
        location = f"{experiment.location}/traces/{trace_id}/artifacts"
    archive = None
    if location and draw(_rarely):
        archive = f"mlflow-artifacts:/archive/{experiment.id}/traces/{trace_id}/artifacts"
    linked = st.lists(st.sampled_from(runs), unique=True, max_size=2) if runs else st.just([])
    return Trace(
        id=trace_id,
        experiment=experiment.id,
        location=location,
        files=draw(_files) if location else None,
        archive=archive,
        parts=draw(st.integers(0, 2)),
        runs=tuple(draw(linked)),
    )


def _issues(experiments: Sequence[Experiment], runs: Sequence[str]) -> st.SearchStrategy[Issue]:
    where = st.sampled_from([experiment.id for experiment in experiments])
    return st.builds(Issue, where, st.none() | st.sampled_from(runs) if runs else st.none())


@st.composite
def _version(draw: st.DrawFn, entities: Sequence[Entity]) -> Version:
    """A version as MLflow writes it: of a deleted one only the storage location is left."""
    stage = draw(st.sampled_from(("None", "Production", "Archived", None, "Deleted_Internal")))
    run_id = draw(_run_ids(entities))
    source, storage = draw(_addresses(entities)), draw(_addresses(entities))
    if stage == "Deleted_Internal":
        return Version(stage, "REDACTED-RUN-ID", "REDACTED-SOURCE-PATH", storage)
    return Version(stage, run_id, source, storage)


def _run_ids(entities: Sequence[Entity]) -> st.SearchStrategy[str | None]:
    runs = [entity.id for entity in entities if isinstance(entity, Run)]
    others = st.sampled_from((None, None, new_id("run of another server")))
    return others | st.sampled_from(runs) if runs else others


def _addresses(entities: Sequence[Entity]) -> st.SearchStrategy[str | None]:
    """What a version's source or storage location may be."""
    elsewhere = st.sampled_from((None, "s3://else/where", "models:/other/3", "/else/where", ""))
    if not entities:
        return elsewhere
    return elsewhere | st.builds(
        lambda entity, form: form(entity), st.sampled_from(entities), st.sampled_from(_FORMS)
    )


def _above(steps: int) -> Callable[[str], str]:
    def go(address: str) -> str:
        for _ in range(steps):
            address = address.rpartition("/")[0]
        # The destination itself is above everything there.
        return address if address.count("/") else f"{address}/"

    return go


def _located(
    change: Callable[[str], str], *, physical: Callable[[str], str] | None = None
) -> Callable[[Entity], str | None]:
    """An address made from an entity's location, as it is written or as the path that it means."""

    def make(entity: Entity) -> str | None:
        address = entity.location
        if address and physical:
            address = physical(place_of(address) or "")
        return change(address) if address else None

    return make


def _archive(entity: Entity) -> str | None:
    return f"{entity.archive}/traces.pb" if entity.archive else None


_FORMS: tuple[Callable[[Entity], str | None], ...] = (
    lambda entity: f"models:/{entity.id}" if isinstance(entity, Model) else f"runs:/{entity.id}",
    lambda entity: f"runs:/{entity.id}/model" if isinstance(entity, Run) else None,
    lambda entity: f"dbfs:/elsewhere/{entity.id}/model",
    lambda entity: f"runs:/{entity.id[:-1]}/model",
    lambda entity: f"mlflow-artifacts:/1/x{entity.id}/artifacts",
    _located(str),
    _located("{}/model".format),
    _located("{}//model/".format),
    _located(str, physical=str),
    _located("{}/model".format, physical=as_file_uri),
    _located(_above(1)),
    _located(_above(2)),
    _located(_above(3)),
    _located(_above(2), physical=str),
    _located(_above(3), physical=as_file_uri),
    lambda entity: f"mlflow-artifacts://server:5000/{entity.experiment}",
    # Beside it: the name begins alike.
    _located(lambda address: f"{_above(2)(address)}1"),
    _archive,
)
