"""The deployments of prefect.yaml, run by a worker against the stand-in site.

The tests stand in the order of a person's first hour, and each needs the ones before it.
"""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import World

CANCEL_WITHIN_S = 45.0  # the worker gives 30 s of grace


@pytest.fixture(scope="module")
def refreshed(world: "World") -> dict[str, Any]:
    """The first refresh of crops, asked for on the command line, when it is over."""
    return world.api.ended(world.command_line_run("refresh-dataset/crops"))


@pytest.fixture(scope="module")
def triggered(world: "World", refreshed: dict[str, Any]) -> dict[str, Any]:
    """The training that the refresh has triggered."""
    deployment_id = world.api.get("/deployments/name/train-model/crops-thumbnail")["id"]
    of_deployment = {"deployments": {"id": {"any_": [deployment_id]}}}
    found = world.until("a triggered training", lambda: world.api.post("/flow_runs/filter", **of_deployment))
    return dict(found[0])


def test_refresh_publishes_a_snapshot(world: "World", refreshed: dict[str, Any]) -> None:
    """`prefect deployment run 'refresh-dataset/crops'` ends Completed, and its snapshot lies where README says."""
    assert refreshed["state_name"] == "Completed", refreshed["state"]["message"]
    card = json.loads((world.where.snapshot("crops", 1) / "snapshot.json").read_text())
    assert min(card["counts"][split] for split in ("train", "val", "test")) >= 8


def test_misspelt_field_is_refused_by_name(world: "World", refreshed: dict[str, Any]) -> None:
    """A dataset with an unknown field is refused when it is asked for, with the field's name; nothing runs."""
    of_flow = {"flows": {"name": {"any_": ["refresh-dataset"]}}}
    runs = world.api.post("/flow_runs/count", **of_flow)
    bad = json.dumps({"name": "crops", "queries": [{"text": "Beach"}], "filtre": {}})
    answer = world.cli("deployment", "run", "refresh-dataset/crops", "--param", f"dataset={bad}")
    assert answer.returncode != 0
    assert "filtre" in answer.stdout + answer.stderr
    assert world.api.post("/flow_runs/count", **of_flow) == runs


def test_published_snapshot_triggers_a_training(triggered: dict[str, Any]) -> None:
    """The event of a published snapshot starts 'train-model/crops-thumbnail' on exactly that version."""
    assert triggered["parameters"]["snapshot"] == "crops@1"
    assert triggered["parameters"]["recipe"] == "crops_thumbnail"


def test_cancelled_training_leaves_no_process(world: "World", triggered: dict[str, Any]) -> None:
    """Cancelling a training ends its process within the grace, and the flow run becomes Cancelled."""
    world.until("the training process", lambda: world.processes("models.fit"), timeout_s=90)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    answer = world.api.post(f"/flow_runs/{triggered['id']}/set_state", state=state)
    assert answer["status"] == "ACCEPT", answer
    world.until("the end of the training process", lambda: not world.processes("models.fit"), timeout_s=CANCEL_WITHIN_S)
    assert world.api.ended(triggered["id"], timeout_s=CANCEL_WITHIN_S)["state_name"] == "Cancelled"


def test_pipeline_trains_a_model(world: "World", twins: list[dict[str, Any]]) -> None:
    """'pipeline/crops' ends Completed, with an evaluated model and its report on disk."""
    run = twins[0]
    assert run["state_name"] == "Completed", run["state"]["message"]
    [evaluation] = world.where.root.glob("runs/*/evaluation.json")
    assert evaluation.with_name("report.html").stat().st_size > 10_000


def test_two_refreshes_of_one_dataset_wait_for_each_other(world: "World", twins: list[dict[str, Any]]) -> None:
    """Two deployments that refresh one dataset at once are under way together, but their tasks never are."""
    pipeline, rival = twins
    [refresh] = [run for run in world.api.children(pipeline["id"]) if run["name"].startswith("refresh")]
    assert rival["state_name"] == refresh["state_name"] == "Completed", rival["state"]["message"]
    assert _overlap(*((run["start_time"], run["end_time"]) for run in (refresh, rival))), "they did not run at once"
    assert not _overlap(*(_busy(world, run["id"]) for run in (refresh, rival)))
    versions = [path.parent.name for path in world.where.dataset("twins").glob("snapshots/*/snapshot.json")]
    assert versions == ["00001"]


def _busy(world: "World", flow_run_id: str) -> tuple[str, str]:
    """When the first task of a flow run started and the last one ended."""
    tasks = world.api.task_runs(flow_run_id)
    return min(task["start_time"] for task in tasks), max(task["end_time"] for task in tasks)


def _overlap(*spans: tuple[str, str]) -> bool:
    """Whether two spans of time share an instant."""
    (start, end), (other_start, other_end) = [tuple(map(datetime.fromisoformat, span)) for span in spans]
    return start < other_end and other_start < end
