"""Processes that are killed, and two that do the same at once: the ledger is the site's truth in the end."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from storage import catalog, ledger
from storage.layout import Layout
from tasks.dataset import Dataset
from tasks.sources.standin import Catalogue, Fault, StandIn

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(240)]
SCRIPT = Path(__file__).with_name("killed_refresh.py")
KILLS = 20
THREADS = 4  # of a process that downloads
Serve = Callable[..., StandIn]
Account = Callable[[Layout, str, set[str]], dict[str, dict[str, Any]]]


class Runner:
    """Starts refreshes in processes of their own."""

    def __init__(self, log: Path) -> None:
        self.log = log
        paths = os.pathsep.join([str(SCRIPT.parents[2]), *filter(None, sys.path)])
        told = {"PYTHONPATH": paths, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=os.environ | told,
            )  # fmt: skip

    def start(self, what: str, dataset: Dataset) -> int:
        """The process id of a run."""
        return self._ask(f"{what} {dataset.model_dump_json()}")

    def wait(self, pid: int) -> int:
        """How it ended."""
        return self._ask(f"wait {pid}")

    def _ask(self, line: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def runner(own_root: Layout) -> Iterator[Callable[[], Runner]]:
    """Makes runners, whose environment is that of the test by then."""
    running: list[Runner] = []

    def start() -> Runner:
        running.append(Runner(own_root.root.parent / f"{own_root.root.name}-{len(running)}.log"))
        return running[-1]

    yield start
    for each in running:
        each.process.communicate()


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over all photos of the site, up to now."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    query = {"uploaded_after": "2024-01-01T00:00:00Z", "label": name}
    return Dataset.model_validate({"name": name, "queries": [query], "filter": {"min_long_px": 72, "min_short_px": 72}})


def requests(site: StandIn) -> int:
    stats = site.stats()
    return int(stats["calls_total"] + stats["images_total"])


def upload(site: StandIn, count: int, chance: random.Random) -> None:
    """``count`` new photos of the last days."""
    for _ in range(count):
        age = timedelta(seconds=chance.randrange(3600, 10 * 86_400))
        site.catalogue.add(1, uploaded_at=(datetime.now(UTC) - age).replace(microsecond=0))


def kill_amid(site: StandIn, runner: Runner, dataset: Dataset, chance: random.Random) -> bool:
    """Start a run and kill it after up to twenty requests and a quarter of a second; False if it had ended by then."""
    until, pause_s = requests(site) + chance.randrange(20), chance.uniform(0, 0.25)
    pid = runner.start("acquire", dataset)
    deadline = time.monotonic() + 20
    while requests(site) < until and time.monotonic() < deadline and Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.002)
    time.sleep(pause_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return runner.wait(pid) == -signal.SIGKILL


def test_twenty_kills_lose_nothing(
    own_root: Layout, serve: Serve, runner: Callable[[], Runner], account: Account, dataset: Dataset
) -> None:
    """kill -9 at random moments, while the site grows: the next run goes on, and what comes out is the truth. Beyond
    what was in flight no file is sent twice.
    """
    chance = random.Random(11)
    site = serve(
        Catalogue.synthetic(20, min_long_px=144, max_long_px=162), latency_s=0.01,
        faults=[Fault("image", "slow_drip", 0.2, seconds=0.5), Fault("image", "truncated_stream", 0.1)],
    )  # fmt: skip
    sent = Counter[str]()
    answer = site.images.answer

    def counted(path: str, *rest: Any) -> Any:
        sent[path] += 1
        return answer(path, *rest)

    site.images.answer = counted  # type: ignore[method-assign]
    run, kills, rounds = runner(), 0, 0
    while kills < KILLS:
        rounds += 1
        assert rounds < 2 * KILLS
        upload(site, 6, chance)
        kills += kill_amid(site, run, dataset, chance)
    for draft in own_root.root.rglob(".*.part"):  # what those that were killed had begun to write, two days ago
        os.utime(draft, (time.time() - 2 * 86_400,) * 2)
    assert run.wait(run.start("acquire", dataset)) == 0, run.log.read_text()[-3000:]
    broken = sum(photo.defect is not None for photo in site.catalogue.listed())
    account(own_root, dataset.name, {photo.id for photo in site.catalogue.listed()})
    assert sum(n - 1 for n in sent.values()) <= THREADS * KILLS + struck(site) + broken


def struck(site: StandIn) -> int:
    return sum(site.stats()["faults"].values())


def test_two_refreshes_at_once_are_one_after_the_other(
    own_root: Layout, serve: Serve, runner: Callable[[], Runner], account: Account, dataset: Dataset
) -> None:
    """Two processes refresh one dataset: each photo is fetched once, and one version is published."""
    site = serve(Catalogue.synthetic(60, seed=3, min_long_px=144, max_long_px=162), latency_s=0.02)
    run = runner()
    pids = [run.start("refresh", dataset) for _ in range(2)]
    assert [run.wait(pid) for pid in pids] == [0, 0], run.log.read_text()[-3000:]
    latest = account(own_root, dataset.name, {photo.id for photo in site.catalogue.listed()})
    assert catalog.versions(own_root, dataset.name) == [1]
    assert len(ledger.read(own_root, dataset.name, "attempts")) == len(latest)
    assert site.stats()["images_total"] <= 2 * 5 + len(latest)
