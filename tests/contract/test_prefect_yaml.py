"""prefect.yaml, key by key: Prefect itself passes over what it does not know."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig
from prefect.cli.deploy._triggers import DeploymentTriggerAdapter
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.events.schemas.events import Resource, ResourceSpecification
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from pydantic import BaseModel

import flows.refresh
from flows.services import WORK_POOL
from storage.layout import Layout
from storage.records import SPLITS, SnapshotRef
from tasks.dataset import Dataset
from tasks.sources.standin.px500_rows import CATEGORIES

FILE = Path(__file__).resolve().parents[2] / "prefect.yaml"
CATALOGUE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = CATALOGUE["deployments"]
# What only who runs a deployment can say.
GIVEN = {
    "dataset": "crops", "version": 1, "old": "crops@1", "new": "crops@2", "decided_by": "Ann", "photos": "holiday",
    "run": "0123456789abcdef",
}  # fmt: skip
TERMS = (
    "Travel Tourism Summer Street Sport Protest Portrait Photography Park Outside Online News Mountains Morning "
    "Military Life Landscape International Horizon Demonstration Celebrity Boat Beach"
)
each = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda found: f"{found['entrypoint']}/{found['name']}")


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = str(deployment["entrypoint"]).rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    return found


def unknown(values: dict[str, Any], model: type[BaseModel], *others: str) -> set[str]:
    """Keys of ``values`` that ``model`` has no field for."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    return set(values) - known - set(others)


def unknown_keys(catalogue: dict[str, Any]) -> list[str]:
    """Every key of ``catalogue`` that nothing would read, with its place."""
    found = [f"{key}" for key in unknown(catalogue, PrefectYamlModel, "definitions")]
    for deployment in catalogue["deployments"]:
        parts: list[tuple[str, dict[str, Any], type[BaseModel]]]
        parts = [("", deployment, DeploymentConfig), (".work_pool", deployment["work_pool"], WorkPoolConfig)]
        parts += [(".schedules", schedule, RawScheduleConfig) for schedule in deployment.get("schedules", [])]
        for place, values, model in parts:
            found += [f"{deployment['name']}{place}.{key}" for key in unknown(values, model)]
        for trigger in deployment.get("triggers", []):
            found += [f"{deployment['name']}.triggers.{key}" for key in unknown(trigger, DeploymentEventTrigger)]
    return found


def test_every_key_is_one_that_prefect_reads() -> None:
    """A misspelt key would be passed over in silence: the schedule would never run."""
    assert unknown_keys(CATALOGUE) == []
    for place in ("", "work_pool", "triggers"):
        spoilt = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        part = spoilt["deployments"][1]
        part = part if not place else part[place][0] if isinstance(part[place], list) else part[place]
        part["scheduels"] = []
        assert {key.rpartition(".")[2] for key in unknown_keys(spoilt)} == {"scheduels"}


def test_every_flow_has_a_deployment_of_another_name() -> None:
    """Every flow that people start is in the catalogue; no two deployments of one flow bear one name."""
    names = [f"{flow_of(deployment).name}/{deployment['name']}" for deployment in DEPLOYMENTS]
    assert len(set(names)) == len(names)
    assert {name.split("/")[0] for name in names} == {
        "refresh-dataset", "train-model", "pipeline", "audit-dataset", "decide-photos", "export-dataset",
        "diff-snapshots", "roll-back", "collect-garbage", "compare-runs", "predict-photos", "export-model",
    }  # fmt: skip


@each
def test_a_deployment_says_what_it_is_for(deployment: dict[str, Any]) -> None:
    """Name, tags and a description that reads as a sentence; it runs in the pool that ``make ui`` makes."""
    assert re.fullmatch(r"[a-z0-9-]+", deployment["name"])
    assert deployment["tags"]
    assert deployment["description"].endswith(".")
    assert deployment["work_pool"]["name"] == WORK_POOL
    assert deployment["enforce_parameter_schema"] is True


@each
def test_its_parameters_are_those_of_its_flow(deployment: dict[str, Any]) -> None:
    """They pass the schema that the server checks, and the flow's own validation, once what is left open is given."""
    flow = flow_of(deployment)
    schema = parameter_schema(flow).model_dump_for_openapi()
    given = {name: GIVEN[name] for name in set(schema.get("required", [])) - set(deployment["parameters"])}
    validate(deployment["parameters"] | given, schema, raise_on_error=True)
    assert set(deployment["parameters"]) <= set(flow.validate_parameters(deployment["parameters"] | given))
    for name in deployment["parameters"]:
        with pytest.raises(ValidationError):
            validate(deployment["parameters"] | given | {name: {"misspelt": 1}}, schema, raise_on_error=True)


def datasets(name: str) -> list[Dataset]:
    """The dataset ``name``, as each deployment that names it spells it out."""
    given = [deployment["parameters"].get("dataset") for deployment in DEPLOYMENTS]
    return [
        Dataset.model_validate(dataset) for dataset in given if isinstance(dataset, dict) and dataset["name"] == name
    ]


def crops() -> list[Dataset]:
    """The dataset ``crops``."""
    return datasets("crops")


def test_crops_is_the_dataset_that_was_described() -> None:
    """The 23 terms, four pages each; at least 1440x720, 3:2 within 0.02; three quarters to train on, 10 % and 15 %."""
    for dataset in crops():
        assert (dataset.name, dataset.source, dataset.rotate) == ("crops", "flickr", "landscape")
        assert [query.text for query in dataset.queries] == TERMS.split()
        assert len(dataset.queries) == 23
        assert {(query.start_page, query.max_pages, query.size, query.bbox) for query in dataset.queries} == {
            (1, 4, "original", None)
        }
        rules = dataset.filter
        assert (rules.min_long_px, rules.min_short_px, rules.aspect, rules.aspect_tolerance) == (1440, 720, 1.5, 0.02)
        assert tuple(getattr(dataset.split, name) for name in SPLITS) == (0.75, 0.10, 0.15)
    assert len(crops()) == 2
    assert crops()[0] == crops()[1]


def test_photos_28_is_the_dataset_that_was_described() -> None:
    """28 categories of 500px by the site's own names, 1,000 photos each, labelled by category, at most 1024 px."""
    [dataset] = datasets("photos-28")
    assert (dataset.source, dataset.rotate, dataset.filter.aspect) == ("500px", "upright", None)
    assert tuple(query.category for query in dataset.queries) == CATEGORIES
    assert len(set(CATEGORIES)) == 28
    assert {(query.limit, query.size, query.text) for query in dataset.queries} == {(1000, "Large", None)}
    assert tuple(getattr(dataset.split, name) for name in SPLITS) == (0.80, 0.10, 0.10)


def test_nothing_but_refresh_and_audit_of_crops_run_by_themselves() -> None:
    """Mondays at three and every day at five, UTC. What 500px does not want is scheduled, but not active."""
    scheduled = {
        f"{deployment['entrypoint']}/{deployment['name']}": deployment["schedules"]
        for deployment in DEPLOYMENTS
        if "schedules" in deployment
    }
    refreshes = {"flows.refresh.refresh_dataset/crops", "flows.refresh.refresh_dataset/photos-28"}
    assert set(scheduled) == {*refreshes, "flows.audit.audit_dataset/crops"}
    for entry, cron in (("refresh.refresh_dataset", "0 3 * * 1"), ("audit.audit_dataset", "0 5 * * *")):
        [schedule] = scheduled[f"flows.{entry}/crops"]
        assert RawScheduleConfig.model_validate(schedule).cron == cron
        assert (schedule["timezone"], schedule["active"]) == ("UTC", True)
    [schedule] = scheduled["flows.refresh.refresh_dataset/photos-28"]
    assert RawScheduleConfig.model_validate(schedule).active is False


def test_a_published_snapshot_triggers_its_training(monkeypatch: pytest.MonkeyPatch, where: Layout) -> None:
    """The event that a refresh of crops emits is the one that the trigger waits for, and it names the snapshot."""
    [deployment] = [found for found in DEPLOYMENTS if found.get("triggers")]
    [spec] = deployment["triggers"]
    trigger = DeploymentTriggerAdapter.validate_python(spec)
    assert isinstance(trigger, DeploymentEventTrigger)
    event = emitted(crops()[0], monkeypatch, where)
    assert trigger.expect == {event["event"]} == {flows.refresh.PUBLISHED}
    assert isinstance(trigger.match, ResourceSpecification)
    assert trigger.match.matches(Resource.model_validate(event["resource"]))
    assert not trigger.match.matches(Resource.model_validate({"prefect.resource.id": "darkroom.dataset.crops2"}))
    assert trigger.enabled
    parameters = {
        name: event["payload"][re.fullmatch(r"\{\{ event\.payload\.(\w+) \}\}", template)[1]]  # type: ignore[index]
        for name, template in (trigger.parameters or {}).items()
    }
    assert parameters == {"snapshot": "crops@3"}
    validate(
        deployment["parameters"] | parameters,
        parameter_schema(flow_of(deployment)).model_dump_for_openapi(),
        raise_on_error=True,
    )


def emitted(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, where: Layout) -> dict[str, Any]:
    """The event of a refresh in which everything else is left out, and showing it fails: it must have been told."""
    events: list[dict[str, Any]] = []
    snapshot = SnapshotRef(dataset=dataset.name, version=3, uri="", counts={}, is_new=True)
    nothing: Any = lambda *args, **options: None  # noqa: E731
    monkeypatch.setattr(flows.refresh, "layout", lambda: where)
    monkeypatch.setattr(flows.refresh, "sources", SimpleNamespace(named=lambda name: SimpleNamespace(check=nothing)))
    monkeypatch.setattr(flows.refresh, "publish", lambda *args: snapshot)
    monkeypatch.setattr(flows.refresh, "emit_event", lambda event, **rest: events.append({"event": event, **rest}))
    monkeypatch.setattr(flows.refresh, "only_one", lambda name: monkeypatch.context())
    monkeypatch.setattr(flows.refresh, "artifacts", SimpleNamespace())  # and the UI is out of order
    monkeypatch.setattr(flows.refresh, "manifest", SimpleNamespace(read=nothing))
    monkeypatch.setattr(flows.refresh, "acquire", SimpleNamespace(find=nothing, fetch=nothing))
    monkeypatch.setattr(flows.refresh, "splits", SimpleNamespace(grant=nothing))
    monkeypatch.setattr(flows.refresh, "curate", lambda dataset: SimpleNamespace(joined=None))
    monkeypatch.setattr(flows.refresh, "with_keys", nothing)
    for announce in (True, False):
        with pytest.raises(AttributeError, match="show_snapshot"):
            flows.refresh.refresh_dataset.fn(dataset, announce=announce)
    [event] = events
    return event
