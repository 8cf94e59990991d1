"""What the tests of faults share: the ledger held against the site's truth, and a refresh without Prefect's engine."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import local
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect import Task

import flows.acquire
import tasks.download
from storage import catalog, ledger, removals
from storage.layout import Layout
from tasks import caching, pace, search, web
from tasks.dataset import Dataset
from tasks.errors import TransientError
from tasks.sources import flickr
from tasks.sources.standin import Catalogue, StandIn

KEY = "0123456789abcdef0123456789abcdef"
SHORT = web.Limits(
    connect_s=5, read_s=5, deadline_s=20, retries=2, backoff_s=0.001, backoff_max_s=0.002, pauses=3, pause_s=0.01,
    pause_max_s=2, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip
WORKERS = 4
Row = dict[str, Any]


@pytest.fixture
def own_root(where: Layout, environment: Callable[..., None]) -> Layout:
    """A data root of the test's own, which tasks write to."""
    environment(DARKROOM_ROOT=str(where.root))
    return where


@pytest.fixture(scope="session")
def fits() -> ModuleType:
    """What ``forked_fits.py`` has: tiny packs, recipes and requests of trainings."""
    found = spec_from_file_location("forked_fits", Path(__file__).with_name("forked_fits.py"))
    assert found
    assert found.loader
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def forks(fits: ModuleType) -> Iterator[Any]:
    """A process that has imported torch and forks trainings when it is told to."""
    started = fits.Forks()
    yield started
    started.kill()


@pytest.fixture
def limits() -> web.Limits:
    """Those of the client; a module may have its own."""
    return SHORT


@pytest.fixture
def serve(
    limits: web.Limits, monkeypatch: pytest.MonkeyPatch, environment: Callable[..., None]
) -> Iterator[Callable[..., StandIn]]:
    """Starts a stand-in and points the environment at it; the client waits for next to nothing."""
    monkeypatch.setattr(web, "LIMITS", limits)
    monkeypatch.setattr(pace, "OPEN_S", 0.05)
    monkeypatch.setattr(pace, "OPEN_MAX_S", 0.2)
    web.client.cache_clear()
    running: list[StandIn] = []

    def start(catalogue: Catalogue, **options: Any) -> StandIn:
        site = StandIn(catalogue, **({"quota_per_hour": 10**9} | options))
        running.append(site.__enter__())
        environment(
            FLICKR_API_KEY=KEY, DARKROOM_FLICKR_URL=site.api_url, DARKROOM_PX500_URL=site.px500_url,
            DARKROOM_IMAGE_HOSTS=urlsplit(site.url).netloc,
        )  # fmt: skip
        return site

    yield start
    web.client().close()
    web.client.cache_clear()
    for site in running:
        site.__exit__(None, None, None)


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over all photos of the site, in a window that is closed."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    query = {"uploaded_after": "2024-01-01T00:00:00Z", "uploaded_before": "2026-01-10T00:00:00Z", "label": name}
    return Dataset.model_validate({"name": name, "queries": [query], "filter": {"min_long_px": 72, "min_short_px": 72}})


@pytest.fixture
def account() -> Callable[[Layout, str, set[str]], dict[str, Row]]:
    """Holds a ledger against the ids that the site lists; returns the latest attempt of each photo."""
    return _account


def _account(root: Layout, name: str, truth: set[str]) -> dict[str, Row]:
    """Nothing lost: each photo of ``truth`` is known and was tried. Nothing twice: each has one row an attempt and is
    held once, in a file with the bytes of its name. No part, draft or journal is left, and no file of nobody's.
    """
    assert sorted(catalog.known(root, name)["photo_id"].to_pylist()) == sorted(truth)
    said: dict[tuple[str, int], Row] = {}
    for row in ledger.read(root, name, "attempts").to_pylist():
        assert said.setdefault((row["photo_id"], row["attempt"]), row) == row
    latest = {photo_id: said[photo_id, attempt] for photo_id, attempt in sorted(said)}
    assert set(latest) == truth
    held = [row for row in said.values() if row["sha256"]]
    assert len({row["photo_id"] for row in held}) == len(held)
    assert all((row["sha256"] is None) == (row["download_reason"] is not None) for row in said.values())
    files = [file for file in (root.root / "blobs").rglob("*") if file.is_file()]
    turned = {file.stem for file in files} - {row["sha256"] for row in held}
    assert {row["sha256"] for row in held} <= {file.stem for file in files}
    assert not turned or (root.root / "stages" / "rotate").is_dir(), "a file of nobody's"
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.stem for file in files)
    assert leftovers(root, name) == []
    return latest


def leftovers(root: Layout, name: str) -> list[str]:
    """Files that only a work under way may have: drafts, parts of transfers, journals."""
    drafts = [file for file in root.root.rglob("*") if file.is_file() and file.suffix == ".part"]
    return [str(file.relative_to(root.root)) for file in [*drafts, *root.journal(name).glob("*")]]


class Direct:
    """A task without Prefect: run in a thread, and tried again as often as Prefect would."""

    def __init__(self, task: Task[..., Any], threads: ThreadPoolExecutor, trying: local) -> None:
        self._task, self._threads, self._trying = task, threads, trying

    def with_options(self, **options: Any) -> "Direct":
        """Itself: nothing is cached, and names are for people."""
        return self

    def submit(self, *arguments: Any) -> "Future[Any]":
        """Begin."""
        return self._threads.submit(self._run, *arguments)

    def _run(self, *arguments: Any) -> Any:
        for pause_s in [*caching.TASK_RETRY_DELAY_S, None]:
            self._trying.is_last = pause_s is None
            try:
                return self._task.fn(*arguments)
            except TransientError:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError("a task was not run")


@pytest.fixture
def refresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Dataset], None]]:
    """The first half of a refresh, search and download, by the flow's own code without Prefect's engine."""
    trying = local()

    def find_and_fetch(wanted: Dataset) -> None:
        flows.acquire.find(wanted)
        flows.acquire.fetch(wanted)

    with ThreadPoolExecutor(WORKERS) as threads:
        monkeypatch.setattr(caching, "TASK_RETRY_DELAY_S", [0.0] * caching.TASK_RETRIES)
        monkeypatch.setattr(flows.acquire, "search", Direct(search.search, threads, trying))
        monkeypatch.setattr(flows.acquire, "download", Direct(tasks.download.download, threads, trying))
        monkeypatch.setattr(tasks.download, "is_last_try", lambda: trying.is_last)
        monkeypatch.setattr(flows.acquire, "say", lambda log, message: log.info(message))
        yield find_and_fetch


class _Clock(type):
    """Its instances are all moments, whichever clock told them."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the wall clock of the product by so much from the true time; monotonic clocks go on."""
    modules: list[ModuleType] = [
        flows.acquire, tasks.download, flickr, web, ledger, catalog, removals,
    ]  # fmt: skip
    shift = timedelta(0)

    class Shifted(datetime, metaclass=_Clock):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz or UTC) + shift

    def move(by: timedelta) -> None:
        nonlocal shift
        shift = by
        for module in modules:
            if hasattr(module, "datetime"):
                monkeypatch.setattr(module, "datetime", Shifted)

    return move
