"""Ctrl-C while a host that asked for a pause is waited for: everything that waits ends at once."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import pytest

import flows.acquire
from storage import ledger
from storage.layout import Layout
from tasks import web
from tasks.dataset import Dataset
from tasks.errors import Interrupted
from tasks.sources.standin import Catalogue, Fault, StandIn
from tasks.stopping import STOPPING

pytestmark = pytest.mark.timeout(60)
PAUSE_S = 40  # that the host asks for
SOON_S = 10  # less than that, however busy the machine is
Serve = Callable[..., StandIn]


@pytest.fixture
def limits(limits: web.Limits) -> web.Limits:
    """Those of the client, which waits for a pause of two minutes."""
    return replace(limits, pause_max_s=120)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, refresh: Callable[[Dataset], None]) -> Iterator[list["Future[Any]"]]:
    """The tasks that a refresh has begun."""
    futures: list[Future[Any]] = []

    class Noted:
        def __init__(self, task: Any) -> None:
            self.task = task

        def with_options(self, **options: Any) -> "Noted":
            return self

        def submit(self, *arguments: Any) -> "Future[Any]":
            futures.append(self.task.submit(*arguments))
            return futures[-1]

    for name in ("search", "download"):
        monkeypatch.setattr(flows.acquire, name, Noted(getattr(flows.acquire, name)))
    yield futures
    STOPPING.clear()


def interrupt_when_paused(site: StandIn) -> threading.Thread:
    """Presses Ctrl-C as soon as the site has asked for a pause."""
    main = threading.main_thread().ident

    def press() -> None:
        while not site.stats()["faults"]:
            time.sleep(0.02)
        time.sleep(0.2)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize(("asked", "kind"), [("api", "http_429"), ("image", "http_429"), ("api", "http_503")])
def test_ctrl_c_ends_the_wait_for_a_pause(
    own_root: Layout, serve: Serve, refresh: Callable[[Dataset], None], begun: list["Future[Any]"], dataset: Dataset,
    asked: str, kind: str,
) -> None:  # fmt: skip
    """Of a search and of a download, whether it is the host or one request that is to wait. Nothing more is asked, and
    the next refresh finds and fetches everything.
    """
    world = Catalogue.synthetic(30, min_long_px=144, max_long_px=162)
    site = serve(world, faults=[Fault(asked, kind, times=1, retry_after_s=PAUSE_S)])
    thread = interrupt_when_paused(site)
    with pytest.raises(KeyboardInterrupt):
        refresh(dataset)
    assert not wait(begun, timeout=SOON_S).not_done
    thread.join()
    assert Interrupted in {type(future.exception()) for future in begun}
    assert {type(future.exception()) for future in begun} <= {Interrupted, type(None)}
    before = site.stats()
    time.sleep(0.1)
    assert site.stats() == before
    shutil.rmtree(own_root.pauses, ignore_errors=True)  # as if the pause were over
    web.client.cache_clear()
    refresh(dataset)
    attempts = ledger.read(own_root, dataset.name, "attempts").to_pylist()
    assert {row["photo_id"] for row in attempts} == {photo.id for photo in world.listed()}
    assert len(attempts) == len(world.listed())
    assert site.stats()["images"].get("200", 0) > 0
    assert not list(own_root.journal(dataset.name).glob("*"))
