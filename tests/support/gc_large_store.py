"""A store in which a collection takes long enough to be killed in the middle of everything."""

from __future__ import annotations

from tests.support.gc_random_store import Experiment, Model, Run, Store, Trace, Version, new_id

_OLD_H, _YOUNG_H = 60 * 24, 24
_FILES = ("MLmodel", "größe.txt", "a/b/c.bin")
_IN_EACH = 6
_PLAIN = 1


def large_store(size: int) -> Store:
    """One experiment that stays, and others that were deleted; every seventh of them stays too.

    Args:
        size: How many were deleted; the one that stays has four times as many runs.
    """
    experiments = (
        Experiment(_PLAIN, f"mlflow-artifacts:/{_PLAIN}", age_h=_OLD_H, datasets=1),
        *(
            Experiment(
                number, f"mlflow-artifacts:/{number}", deleted=True, age_h=_OLD_H,
                extras=frozenset({"tags", "labels"}), datasets=1,
            )
            for number in range(_PLAIN + 1, _PLAIN + 1 + size)
        ),
    )  # fmt: skip
    runs = tuple(
        _run(experiment, number)
        for experiment in experiments
        for number in range(4 * size if experiment.id == _PLAIN else _IN_EACH)
    )
    models = tuple(
        _model(experiment, number)
        for experiment in experiments
        for number in range(2 * size if experiment.id == _PLAIN else 2)
    )
    traces = tuple(_trace(experiment, number) for experiment in experiments for number in range(2))
    # What is needed would go otherwise.
    needed = (
        next(run for run in runs if run.deleted),
        next(each for each in models if each.deleted),
    )
    versions = tuple(Version("None", source=f"{each.location}/model") for each in needed)
    return Store(experiments, runs, models, traces, versions=versions)


def _run(experiment: Experiment, number: int) -> Run:
    run_id = new_id("run", experiment.id, number)
    is_first = number == 0 and (experiment.id == _PLAIN or experiment.id % 7 == 0)
    return Run(
        id=run_id,
        experiment=experiment.id,
        location=f"{experiment.location}/{run_id}/artifacts",
        deleted=not is_first,
        age_h=_YOUNG_H if experiment.id == _PLAIN and number % 4 == 1 else _OLD_H,
        files=_FILES,
        parts=2,
        datasets=frozenset({0}),
    )


def _model(experiment: Experiment, number: int) -> Model:
    model_id = f"m-{new_id('model', experiment.id, number)}"
    return Model(
        id=model_id,
        experiment=experiment.id,
        location=f"{experiment.location}/models/{model_id}/artifacts",
        deleted=number % 2 == 1,
        age_h=_OLD_H,
        files=_FILES,
    )


def _trace(experiment: Experiment, number: int) -> Trace:
    trace_id = f"tr-{new_id('trace', experiment.id, number)}"
    location = f"{experiment.location}/traces/{trace_id}/artifacts"
    return Trace(id=trace_id, experiment=experiment.id, location=location, files=_FILES)
