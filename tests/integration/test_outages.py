"""What befalls the machine and the line: a site that is gone for a while, a clock that is set back, a full disk."""

import logging
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from storage import catalog, ledger
from storage.layout import Layout
from storage.settings import apply_environment
from tasks import caching, pace, web
from tasks import download as downloading
from tasks.dataset import Dataset
from tasks.errors import DiskFull, SourceUnavailable
from tasks.sources import flickr, windows
from tasks.sources.standin import Catalogue, Fault, Photo, StandIn

pytestmark = pytest.mark.timeout(300)
Serve = Callable[..., StandIn]
Refresh = Callable[[Dataset], None]
Account = Callable[[Layout, str, set[str]], dict[str, dict[str, Any]]]
SetClock = Callable[[timedelta], None]
DAY = timedelta(days=1)
LOG = logging.getLogger(__name__)
OPEN_S, OPEN_MAX_S, RETRY_DELAYS_S = pace.OPEN_S, pace.OPEN_MAX_S, list(caching.TASK_RETRY_DELAY_S)  # the product's own


@pytest.fixture(scope="module")
def sound() -> list[Photo]:
    """Small photos with nothing wrong, each made once already, so that the site is fast."""
    world = Catalogue.synthetic(110, min_long_px=144, max_long_px=162)
    photos = [p for p in world.listed() if p.defect is None and p.is_original_public and p.original_format == "jpg"]
    photos = [photo for photo in photos if photo.duplicate_kind is None][:60]
    assert len({world.original(photo.id) for photo in photos}) == 60
    return photos


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over all photos of the site, up to now."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    return Dataset.model_validate(
        {"name": name, "queries": [{"uploaded_after": "2024-01-01T00:00:00Z", "label": name}]}
    )


def filled(photos: list[Photo]) -> Catalogue:
    catalogue = Catalogue()
    catalogue.put(photos)
    return catalogue


def ids(catalogue: Catalogue) -> set[str]:
    return {photo.id for photo in catalogue.listed()}


class Outage:
    """A stand-in that is gone for a while once ``is_time`` says so: who asks meanwhile is hung up on, and counted."""

    def __init__(self, site: StandIn, is_time: Callable[[StandIn], bool], seconds: float) -> None:
        self.site, self.is_time, self.seconds = site, is_time, seconds
        self.asked = 0
        self._port = int(site.url.rpartition(":")[2])
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Outage":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self.site.__exit__(None, None, None)

    def join(self) -> StandIn:
        """The site that is there afterwards."""
        self._thread.join()
        return self.site

    def _run(self) -> None:
        while not self.is_time(self.site):
            time.sleep(0.002)
        self.site.__exit__(None, None, None)
        with socket.create_server(("127.0.0.1", self._port), reuse_port=False) as nobody:
            nobody.settimeout(0.02)
            until = time.monotonic() + self.seconds
            while time.monotonic() < until:
                with suppress(TimeoutError):
                    line, _ = nobody.accept()
                    self.asked += 1
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.close()
        self.site = StandIn(self.site.catalogue, quota_per_hour=10**9, port=self._port).__enter__()


@pytest.fixture
def outage_s(request: pytest.FixtureRequest) -> float:
    """How long the minute is: two seconds, unless a person wants a real one (see tests/conftest.py)."""
    return float(request.config.getoption("--outage-s"))


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch, outage_s: float) -> None:
    """Back-off, circuit breaker and the pauses between the tries of a task, all as much shorter as the minute."""
    real, share = web.Limits(), outage_s / 60
    monkeypatch.setattr(pace, "OPEN_S", OPEN_S * share)
    monkeypatch.setattr(pace, "OPEN_MAX_S", OPEN_MAX_S * share)
    monkeypatch.setattr(caching, "TASK_RETRY_DELAY_S", [delay_s * share for delay_s in RETRY_DELAYS_S])
    web.client().limits = replace(
        web.LIMITS, retries=real.retries, backoff_s=real.backoff_s * share, backoff_max_s=real.backoff_max_s * share
    )


@pytest.mark.parametrize("moment", ["search", "download"])
def test_a_site_that_is_gone_for_a_minute_costs_a_minute(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, outage_s: float, moment: str,
) -> None:  # fmt: skip
    """Amid search or download: the run outlasts it, or ends with one sentence that names the host, and hardly asks
    while nobody is there; a second run completes what the first began, and asks for nothing that was had.
    """
    monkeypatch.setattr(windows, "TARGET", 4)
    monkeypatch.setattr(flickr, "PER_PAGE", 1)
    site = serve(filled(sound), latency_s=0.02)
    request.getfixturevalue("scaled")
    times = {
        "search": lambda site: site.stats()["calls_total"] >= 12,
        "download": lambda site: site.stats()["images_total"] >= 12,
    }
    with Outage(site, times[moment], outage_s) as outage:
        ended, began = "well", time.monotonic()
        try:
            refresh(dataset)
        except SourceUnavailable as error:
            ended = str(error)
        took_s = time.monotonic() - began
        assert ended == "well" or ("127.0.0.1" in ended and "\n" not in ended)
        assert 0 < outage.asked <= 16 + 8 + 4 * 8
        before, after = site.stats(), outage.join().stats
        refresh(dataset)
        account(own_root, dataset.name, ids(site.catalogue))
        sent = before["images"].get("200", 0) + after()["images"].get("200", 0)
        assert len(sound) <= sent <= len(sound) + 16, "beyond what was in flight nothing is sent twice"
        rows = ledger.read(own_root, dataset.name, "windows").to_pylist()
        needed = sum(row["pages"] for row in rows)
        calls = before["calls_total"] + after()["calls_total"]
        assert calls <= needed + 4 * 5 + 4, "windows in flight are asked again"
        LOG.info(
            "gone for %.0f s amid %s: after %.1f s the run ended %s; requests while gone: %d; calls: %d, needed: %d; "
            "photos: %d, sent: %d", outage_s, moment, took_s, ended, outage.asked, calls, needed, len(sound), sent,
        )  # fmt: skip


def recent(photo: Photo, number: int, age: timedelta) -> Photo:
    moment = (datetime.now(UTC) - age).replace(microsecond=0)
    return replace(photo, id=f"{10**10 + number}", uploaded_at=moment, updated_at=moment)


@pytest.mark.parametrize("ahead", [3 * DAY, 300 * DAY])
def test_a_clock_that_is_set_back_loses_nothing(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    set_clock: SetClock, ahead: timedelta,
) -> None:  # fmt: skip
    """The first refresh ran under a clock that was ahead. Under the right one what failed is tried again, what is new
    is found, nothing is fetched twice; and a third refresh has nothing left to do.
    """
    site = serve(
        filled(sound[:40]), faults=[Fault("image", "http_503", 0.5, times=6), Fault("image", "zero_bytes", 0.3)]
    )
    web.client().limits = replace(web.LIMITS, retries=0)
    site.catalogue.put(recent(photo, n, n * DAY) for n, photo in enumerate(sound[40:50], start=5))
    set_clock(ahead)
    refresh(dataset)
    held = catalog.held(own_root, dataset.name).num_rows
    assert held < len(ids(site.catalogue))
    site.faults.clear()
    site.catalogue.put(recent(photo, 100 + n, n * DAY / 2) for n, photo in enumerate(sound[50:], start=1))
    set_clock(timedelta(0))
    sent = site.stats()["images_total"]
    refresh(dataset)
    latest = account(own_root, dataset.name, ids(site.catalogue))
    assert {row["download_reason"] for row in latest.values()} == {None}
    assert site.stats()["images_total"] - sent == len(latest) - held
    asked = site.stats()["calls_total"], site.stats()["images_total"]
    refresh(dataset)
    assert (site.stats()["calls_total"] - asked[0], site.stats()["images_total"]) == (1, asked[1])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skips where none may be mounted."""
    mount = tmp_path / "disk"
    mount.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_full_disk_loses_nothing(
    small_disk: Path, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Wherever it fills up, amid search, download or journal: DiskFull in one sentence, no torn file; once there is
    space again a refresh completes what was begun.
    """
    site = serve(filled(sound))
    root = Layout(small_disk / "root")
    apply_environment(DARKROOM_ROOT=str(root.root))
    web.client.cache_clear()
    monkeypatch.setattr(downloading, "FREE_BYTES", 0)
    ballast, ended, said = small_disk / "ballast", set(), ""
    for free_kb in (0, 8, 16, 24, 40, 64, 96, 160, 280, 400):
        fill(ballast, free_kb * 1024)
        try:
            refresh(dataset)
            ended.add("well")
        except DiskFull as error:
            said += str(error)
            ended.add("full before the search" if not root.ledger(dataset.name, "windows").is_dir() else "full after")
        ballast.unlink()
        for file in root.root.rglob("*.parquet"):
            pq.read_table(file, partitioning=None)
    refresh(dataset)
    latest = account(root, dataset.name, ids(site.catalogue))
    assert {row["download_reason"] for row in latest.values()} == {None}
    assert {"full before the search", "full after"} <= ended
    assert "\n" not in said


def fill(ballast: Path, free_bytes: int) -> None:
    """Leave ``free_bytes`` on the file system of ``ballast``."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - free_bytes))
