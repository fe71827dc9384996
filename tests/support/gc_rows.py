"""The rows that a store described in `gc_random_store` has, and what each of them lives by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.gc_random_store import (
    HOUR_MS,
    Experiment,
    Issue,
    Link,
    Model,
    Run,
    Store,
    Trace,
    Version,
    new_id,
)


@dataclass(frozen=True)
class Row:
    """A row, and what it lives by.

    Args:
        needs: It goes with the first of these that goes.
        used_by: It goes with the last of these, when there are any.
        forgets: Columns that become NULL when what they name goes.
    """

    table: str
    values: Mapping[str, Any]
    needs: frozenset[str] = frozenset()
    used_by: frozenset[str] = frozenset()
    forgets: Mapping[str, str] = field(default_factory=dict)


def rows_of(store: Store, now_ms: int) -> Iterator[Row]:
    """Every row of a store, parents first.

    Args:
        store: What is in it.
        now_ms: What ages are counted from.
    """
    for experiment in store.experiments:
        yield _experiment_row(experiment, now_ms)
    for run in store.runs:
        yield _run_row(run, now_ms)
    for model in store.models:
        yield _model_row(model, now_ms)
    for experiment in store.experiments:
        yield from _extra_rows(experiment)
        yield from _dataset_rows(experiment, store.runs)
    for run in store.runs:
        yield from _rows_of_run(run)
    for model in store.models:
        yield from _rows_of_model(model)
    for trace in store.traces:
        yield from _rows_of_trace(trace)
    for number, link in enumerate(store.links):
        yield from _link_rows(link, number, store.models)
    for number, issue in enumerate(store.issues):
        yield _issue_row(issue, number)
    yield from _registry_rows(store.versions)


def _experiment_row(experiment: Experiment, now_ms: int) -> Row:
    values = {
        "experiment_id": experiment.id,
        "name": f"größe {experiment.id}",
        "artifact_location": experiment.location,
        "lifecycle_stage": "deleted" if experiment.deleted else "active",
        "creation_time": 1,
        "last_update_time": _time(experiment.age_h, now_ms),
    }
    return Row("experiments", values, frozenset({str(experiment.id)}))


def _run_row(run: Run, now_ms: int) -> Row:
    values = {
        "run_uuid": run.id,
        "name": "run 😀",
        "source_type": "LOCAL",
        "status": "FINISHED",
        "start_time": 1,
        "lifecycle_stage": "deleted" if run.deleted else "active",
        "artifact_uri": run.location,
        "experiment_id": run.experiment,
        "deleted_time": _time(run.age_h, now_ms) if run.deleted else None,
    }
    return Row("runs", values, frozenset({run.id}))


def _model_row(model: Model, now_ms: int) -> Row:
    values = {
        "model_id": model.id,
        "experiment_id": model.experiment,
        "name": "model",
        "artifact_location": model.location,
        "creation_timestamp_ms": 1,
        "last_updated_timestamp_ms": _time(model.age_h, now_ms),
        "status": 2,
        "lifecycle_stage": "deleted" if model.deleted else "active",
        "source_run_id": model.source_run,
    }
    return Row("logged_models", values, frozenset({model.id}))


def _time(age_h: int | None, now_ms: int) -> int | None:
    return None if age_h is None else now_ms - age_h * HOUR_MS


def _extra_rows(experiment: Experiment) -> Iterator[Row]:
    number, needs = experiment.id, frozenset({str(experiment.id)})

    def row(table: str, forgets: Mapping[str, str] | None = None, **values: Any) -> Row:
        return Row(table, values, frozenset() if forgets else needs, forgets=forgets or {})

    for extra in sorted(experiment.extras):
        ours = f"{extra[:6]}-{number}"
        match extra:
            case "tags":
                yield row("experiment_tags", key="k", value="größe", experiment_id=number)
            case "labels":
                yield row(
                    "label_schemas", schema_id=ours, experiment_id=number, name="n", type="t",
                    input_type="text", input_config="{}", created_time=1, last_update_time=1,
                )  # fmt: skip
            case "queue":
                yield row(
                    "review_queues", queue_id=ours, experiment_id=number, name="n", queue_type="t",
                    creation_time_ms=1, last_update_time_ms=1, name_key="n",
                )  # fmt: skip
                yield row(
                    "review_queue_items", queue_id=ours, item_type="trace", item_id="tr-1",
                    status="OPEN", creation_time_ms=1, last_update_time_ms=1,
                )  # fmt: skip
                yield row("review_queue_users", queue_id=ours, user_id="ada")
                yield row("review_queue_label_schemas", queue_id=ours, schema_id="s")
            case "scorer" | "guardrail":
                yield row("scorers", experiment_id=number, scorer_name=extra, scorer_id=ours)
                yield row(
                    "scorer_versions", scorer_id=ours, scorer_version=1, serialized_scorer="{}"
                )
                yield row(
                    "online_scoring_configs", online_scoring_config_id=ours, scorer_id=ours,
                    sample_rate=0.5, experiment_id=number,
                )  # fmt: skip
                if extra == "guardrail":
                    yield row(
                        "guardrails", guardrail_id=ours, name="g", scorer_id=ours,
                        scorer_version=1, stage="BEFORE", action="BLOCK", created_at=1,
                        last_updated_at=1,
                    )  # fmt: skip
            case "endpoint":
                yield row(
                    "endpoints", {"experiment_id": str(number)}, endpoint_id=ours, name=ours,
                    created_at=1, last_updated_at=1, experiment_id=number,
                )  # fmt: skip
            case "rollups":
                yield from _rollup_rows(number, needs)
            case "evaluation":
                yield Row(
                    "evaluation_datasets",
                    {"dataset_id": ours, "name": "e", "created_time": 1, "last_update_time": 1},
                )
                yield _association(needs, ("evaluation_dataset", ours), ("experiment", str(number)))
            case "unused dataset":
                yield _dataset_row(number, "unused", needs, frozenset())


def _rollup_rows(experiment: int, needs: frozenset[str]) -> Iterator[Row]:
    day = {"experiment_id": experiment, "rollup_day": "2026-01-31"}
    of_metric = {**day, "id": experiment, "metric_name": "m", "grouping_set": "g"}
    for table in (
        "sql_trace_metric_daily_rollups",
        "sql_span_cost_daily_rollups",
        "sql_assessment_daily_rollups",
    ):
        yield Row(table, {**of_metric, "sample_count": 1}, needs)
    yield Row("sql_trace_rollup_rebuild_queue", {**day, "rollup_family": "f"}, needs)


def _association(needs: frozenset[str], source: tuple[str, str], to: tuple[str, str]) -> Row:
    values = {
        "association_id": new_id(*source, *to),
        "source_type": source[0],
        "source_id": source[1],
        "destination_type": to[0],
        "destination_id": to[1],
    }
    return Row("entity_associations", values, needs)


def _dataset_rows(experiment: Experiment, runs: Iterable[Run]) -> Iterator[Row]:
    for number in range(experiment.datasets):
        users = {run.id for run in runs if run.experiment == experiment.id}
        users &= {run.id for run in runs if number in run.datasets}
        needs = frozenset({str(experiment.id)})
        yield _dataset_row(experiment.id, str(number), needs, frozenset(users))


def _dataset_row(experiment: int, name: str, needs: frozenset[str], used_by: frozenset[str]) -> Row:
    values = {
        "dataset_uuid": new_id("dataset", experiment, name),
        "experiment_id": experiment,
        "name": name,
        "digest": "d",
        "dataset_source_type": "local",
        "dataset_source": "{}",
    }
    return Row("datasets", values, needs, used_by)


def _rows_of_run(run: Run) -> Iterator[Row]:
    needs, of_run = frozenset({run.id}), {"run_uuid": run.id}
    for number in range(run.parts):
        key = {"key": f"größe {number}", **of_run}
        yield Row("params", {**key, "value": "1"}, needs)
        yield Row("tags", {**key, "value": "x"}, needs)
        point = {**key, "value": 0.5, "timestamp": 1, "is_nan": False}
        for step in range(2):
            yield Row("metrics", {**point, "step": step}, needs)
        yield Row("latest_metrics", {**point, "step": 1}, needs)
    yield _association(needs, ("run", run.id), ("prompt_version", "prompt/1"))
    for number in sorted(run.datasets):
        dataset = new_id("dataset", run.experiment, number)
        yield from _input_rows(needs, ("DATASET", dataset), ("RUN", run.id))


def _input_rows(
    needs: frozenset[str], source: tuple[str, str], to: tuple[str, str]
) -> Iterator[Row]:
    input_id = new_id("input", *source, *to)
    values = {
        "input_uuid": input_id,
        "source_type": source[0],
        "source_id": source[1],
        "destination_type": to[0],
        "destination_id": to[1],
    }
    yield Row("inputs", values, needs)
    tag = {"input_uuid": input_id, "name": "mlflow.data.context", "value": "training"}
    yield Row("input_tags", tag, needs)


def _rows_of_model(model: Model) -> Iterator[Row]:
    needs = frozenset({model.id})
    of_model = {"model_id": model.id, "experiment_id": model.experiment}
    for number in range(model.parts):
        param = {"param_key": f"k{number}", "param_value": "größe"}
        tag = {"tag_key": f"k{number}", "tag_value": "x"}
        yield Row("logged_model_params", {**of_model, **param}, needs)
        yield Row("logged_model_tags", {**of_model, **tag}, needs)
        yield _association(needs, ("model", model.id), ("prompt_version", f"prompt/{number}"))


def _rows_of_trace(trace: Trace) -> Iterator[Row]:
    needs, of_trace = frozenset({trace.id}), {"request_id": trace.id}
    info = {**of_trace, "experiment_id": trace.experiment, "timestamp_ms": 1, "status": "OK"}
    yield Row("trace_info", info, needs)
    tags = {"t": "größe", "mlflow.artifactLocation": trace.location}
    tags["mlflow.trace.archiveLocation"] = trace.archive
    for key, value in tags.items():
        if value is not None:
            yield Row("trace_tags", {**of_trace, "key": key, "value": value}, needs)
    session = {"key": "mlflow.trace.session", "value": "s"}
    yield Row("trace_request_metadata", {**of_trace, **session}, needs)
    yield Row("trace_metrics", {**of_trace, "key": "k", "value": 1.5}, needs)
    for number in range(trace.parts):
        yield from _span_rows(trace, number)
    for run in trace.runs:
        yield _association(needs | {run}, ("trace", trace.id), ("run", run))
    yield _association(needs, ("trace", trace.id), ("prompt_version", "prompt/1"))


def _span_rows(trace: Trace, number: int) -> Iterator[Row]:
    needs = frozenset({trace.id})
    key = {"trace_id": trace.id, "span_id": f"s{number}"}
    span = {
        **key,
        "experiment_id": trace.experiment,
        "status": "OK",
        "start_time_unix_nano": 1,
        "end_time_unix_nano": 5,
        "content": "{}",
    }
    yield Row("spans", span, needs)
    yield Row("span_metrics", {**key, "key": "k", "value": 1.5}, needs)
    assessment = {
        **key,
        "assessment_id": f"a{number}-{trace.id}",
        "name": "a",
        "assessment_type": "feedback",
        "value": "1",
        "created_timestamp": 1,
        "last_updated_timestamp": 1,
        "source_type": "HUMAN",
        # Nothing of the run: the assessment outlives it.
        "run_id": next(iter(trace.runs), None),
        "valid": True,
    }
    yield Row("assessments", assessment, needs)


def _link_rows(link: Link, number: int, models: Iterable[Model]) -> Iterator[Row]:
    needs = frozenset({link.run, link.model})
    match link.kind:
        case "metric":
            experiment = next(model.experiment for model in models if model.id == link.model)
            values = {
                "model_id": link.model,
                "metric_name": f"m{number}",
                "metric_timestamp_ms": 1,
                "metric_step": 0,
                "metric_value": 0.5,
                "experiment_id": experiment,
                "run_id": link.run,
            }
            yield Row("logged_model_metrics", values, needs)
        case kind:
            name = kind.upper()
            source, to = (f"RUN_{name}", link.run), (f"MODEL_{name}", link.model)
            yield from _input_rows(needs, source, to)


def _issue_row(issue: Issue, number: int) -> Row:
    values = {
        "issue_id": f"i{number}",
        "experiment_id": issue.experiment,
        "name": "n",
        "description": "d",
        "status": "open",
        "source_run_id": issue.run,
        "created_timestamp": 1,
        "last_updated_timestamp": 1,
    }
    forgets = {"source_run_id": issue.run} if issue.run else {}
    return Row("issues", values, frozenset({str(issue.experiment)}), forgets=forgets)


def _registry_rows(versions: Iterable[Version]) -> Iterator[Row]:
    model = {"workspace": "default", "name": "registered"}
    yield Row("registered_models", {**model, "creation_time": 1})
    for number, version in enumerate(versions, 1):
        key: dict[str, Any] = {**model, "version": number}
        values = {
            "current_stage": version.stage,
            "status": "READY",
            "run_id": version.run_id,
            "source": version.source,
            "storage_location": version.storage_location,
        }
        yield Row("model_versions", {**key, **values})
        yield Row("model_version_tags", {**key, "key": "k", "value": "größe"})
