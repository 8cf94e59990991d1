"""The Prefect UI in a real browser: a person finds the runs, what they made, and the deployments."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests

if TYPE_CHECKING:
    from tests.e2e.conftest import Browser, World

DEPLOYMENTS = ("refresh-dataset/crops", "train-model/crops-thumbnail", "pipeline/crops")
STAGES = ("search", "measure", "filter", "rotate", "dedup", "labels", "split", "audit-splits", "join", "report")
HARMLESS = ("favicon.ico", "undefined.svg")  # the UI itself asks for these in vain


@pytest.fixture
def page(browser: "Browser") -> "Browser":
    """The browser, with nothing noted yet."""
    browser.forget()
    return browser


@pytest.fixture(scope="module")
def subflows(world: "World", twins: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The subflow runs of the pipeline by their first word, refresh and train."""
    return {run["name"].split()[0]: run for run in world.api.children(twins[0]["id"])}


@pytest.fixture(scope="module")
def artifacts(world: "World", subflows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The artifacts of the pipeline by the last word of their keys."""
    ids = [run["id"] for run in subflows.values()]
    found = world.api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": ids}})
    return {artifact["key"].rsplit("-", 1)[-1]: artifact for artifact in found}


def test_run_page_shows_state_and_subflows(page: "Browser", world: "World", twins: list[dict[str, Any]]) -> None:
    """The page of a pipeline run says Completed, draws its graph and lists the refresh and the training."""
    page.open(f"{world.ui}/runs/flow-run/{twins[0]['id']}")
    page.until_says("pipeline twins", "Completed", "Subflow Runs")
    page.until("document.querySelector('canvas')?.width > 100")
    page.click("Subflow Runs")
    page.until_says("refresh twins", "train crops_thumbnail_narrow on twins@1")
    _check_traffic(page)


def test_refresh_page_lists_its_tasks(
    page: "Browser", world: "World", subflows: dict[str, dict[str, Any]], twins: list[dict[str, Any]]
) -> None:
    """The page of a refresh lists a task run of every stage: of the first one, for the other found nothing new."""
    refreshes = (subflows["refresh"]["id"], twins[1]["id"])
    tasks = {run_id: {task["name"].split()[0] for task in world.api.task_runs(run_id)} for run_id in refreshes}
    first = max(refreshes, key=lambda run_id: len(tasks[run_id]))
    page.open(f"{world.ui}/runs/flow-run/{first}?tab=Task+Runs")
    page.click("Task Runs")
    page.until_says(*STAGES)
    _check_traffic(page)


def test_training_page_shows_our_log(page: "Browser", world: "World", subflows: dict[str, dict[str, Any]]) -> None:
    """The page of a training shows the log lines of its tasks, epoch by epoch."""
    page.open(f"{world.ui}/runs/flow-run/{subflows['train']['id']}")
    page.click("Logs")
    page.until_says("packed train=", "epoch 1 of 30")


def test_run_page_lists_its_artifacts(page: "Browser", world: "World", subflows: dict[str, dict[str, Any]]) -> None:
    """The artifacts tab of a refresh lists tables, picture and link."""
    page.open(f"{world.ui}/runs/flow-run/{subflows['refresh']['id']}")
    page.click("Artifacts")
    page.until_says(*(f"dataset-twins-{name}" for name in ("splits", "rejections", "photos", "report")))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("splits", ("train", "val", "test", "rejected")),
        ("rejections", ("dedup/duplicate", "filter/too_small")),
        ("figures", ("Crop or whole, accuracy", "baseline")),
    ],
)
def test_table_opens(
    page: "Browser", world: "World", artifacts: dict[str, dict[str, Any]], name: str, words: tuple[str, ...]
) -> None:
    """A table artifact opens with its rows."""
    page.open(f"{world.ui}/artifacts/artifact/{artifacts[name]['id']}")
    page.until_says(*words)
    _check_traffic(page)


@pytest.mark.parametrize("name", ["photos", "rectangles"])
def test_picture_is_displayed(page: "Browser", world: "World", artifacts: dict[str, dict[str, Any]], name: str) -> None:
    """A picture artifact is drawn, whole."""
    page.open(f"{world.ui}/artifacts/artifact/{artifacts[name]['id']}")
    page.until("[...document.images].some(image => image.complete && image.naturalWidth > 300)")
    _check_traffic(page)


@pytest.mark.parametrize("flow", ["refresh", "train"])
def test_report_opens_from_its_link(
    page: "Browser", world: "World", subflows: dict[str, dict[str, Any]], flow: str
) -> None:
    """The link on an artifact's page leads to a report that opens without an error and needs no other host."""
    found = world.api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [subflows[flow]["id"]]}})
    [report] = [artifact for artifact in found if artifact["key"].endswith("-report")]
    page.open(f"{world.ui}/artifacts/artifact/{report['id']}")
    page.until(f"document.querySelector('a[href^=\"{world.files}/\"]')")
    address = page.evaluate(f"document.querySelector('a[href^=\"{world.files}/\"]').href")
    assert requests.get(address, timeout=10).status_code == 200
    page.forget()
    page.open(address)
    page.evaluate("[...document.images].map(image => image.loading = 'eager').length")
    page.until("document.querySelector('h1')?.innerText && [...document.images].every(image => image.naturalWidth > 0)")
    assert page.errors == []
    _check_traffic(page)


@pytest.mark.parametrize("width_px", [1280, 390])
def test_report_fits_its_window(
    page: "Browser", artifacts: dict[str, dict[str, Any]], world: "World", width_px: int
) -> None:
    """A report is never wider than the window, on a desk or on a telephone."""
    page.resize(width_px, 844)
    run = max(world.where.root.glob("runs/*/report.html"))
    for report in (world.where.snapshot("twins", 1) / "report.html", run):
        page.open(f"{world.files}/{report.relative_to(world.where.root)}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    page.resize(1280, 900)


def test_deployments_and_schedule_are_listed(page: "Browser", world: "World") -> None:
    """The deployments page lists what prefect.yaml lists, and the refresh says when it runs."""
    page.open(f"{world.ui}/deployments")
    page.until_says("collect-garbage", "predict-photos", "refresh-dataset", "pipeline")  # the first page, by name
    for name in DEPLOYMENTS:
        deployment = world.api.get(f"/deployments/name/{name}")
        page.open(f"{world.ui}/deployments/deployment/{deployment['id']}")
        page.until_says(deployment["name"], "Upcoming", *(schedule["slug"] for schedule in deployment["schedules"]))
        page.click("Description")
        page.until_says(deployment["description"].split(",")[0])
    _check_traffic(page)


def test_form_of_a_dataset_has_its_fields(page: "Browser", world: "World") -> None:
    """The form of a custom refresh has a field for every part of a dataset, with what it means."""
    deployment = world.api.get("/deployments/name/refresh-dataset/crops")
    page.open(f"{world.ui}/deployments/deployment/{deployment['id']}/run")
    page.until_says("Queries", "Max Pages", "Which photos are good enough.", "Min Long Px", "Share")


def _check_traffic(page: "Browser") -> None:
    """Nothing was asked of another machine, and nothing failed."""
    hosts = {urlsplit(url).hostname for url in page.requested if urlsplit(url).scheme in ("http", "https", "ws")}
    assert hosts <= {"127.0.0.1"}
    assert [each for each in page.failed if not each.endswith(HARMLESS)] == []
