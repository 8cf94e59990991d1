"""The demo as a person runs it, twice: the first run does everything, the second nothing."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.layout import Layout
from storage.settings import CHECKOUT, child_environment

if TYPE_CHECKING:
    from tests.e2e.conftest import Api

DEMO_TIMEOUT_S = 560


@dataclass
class Demo:
    """A data root, and what the demo printed on it."""

    where: Layout
    first: subprocess.CompletedProcess[str]
    left: dict[int, str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, processes: Callable[..., dict[int, str]]) -> Iterator[Demo]:
    """The first run, over; the root's processes are ended at the end."""
    where = Layout(tmp_path_factory.mktemp("demo"))
    first = _python(where, "flows.demo")
    yield Demo(where, first, processes(where.root))
    _python(where, "flows.services", "stop")


def test_demo_says_what_it_made(demo: Demo) -> None:
    """It ends well and prints the UI's address, the snapshot, counts by split and reason, figures beside baselines."""
    assert demo.first.returncode == 0, demo.first.stdout + demo.first.stderr
    said = demo.first.stdout
    assert re.search(r"Prefect UI: http://127\.0\.0\.1:\d+", said)
    assert str(demo.where.snapshot("demo", 1)) in said
    assert re.search(r"train \d+ +val \d+ +test \d+ +rejected \d+", said)
    assert re.search(r"filter/too_small +\d+", said)
    assert "baseline" in said
    assert re.search(r"Crop or whole, accuracy +0\.\d+ +0\.\d+ to 0\.\d+ +0\.500 +yes", said)


def test_demo_report_lies_where_it_says(demo: Demo) -> None:
    """The last path that it prints is the report of the trained model."""
    found = re.search(r"^Report +(\S+)$", demo.first.stdout, re.MULTILINE)
    assert found
    assert "<h1" in Path(found[1]).read_text(encoding="utf-8")


def test_demo_leaves_nothing_running(demo: Demo) -> None:
    """No process of the demo outlives it."""
    assert demo.left == {}


def test_demo_again_does_nothing_twice(
    demo: Demo, api: "type[Api]", processes: Callable[..., dict[int, str]], until: Callable[..., Any]
) -> None:
    """The second run, kept open: every task is Cached; what stays up is ended by `make stop`."""
    again = _python(demo.where, "flows.demo", "--keep")
    assert again.returncode == 0, again.stdout + again.stderr
    url = re.search(r"Prefect UI: (\S+)", again.stdout)
    assert url
    server = api(f"{url[1]}/api")
    newest, first = server.post("/flow_runs/filter", flows={"name": {"any_": ["pipeline"]}}, sort="START_TIME_DESC")
    assert _bodies_run(server, first)["Completed"] > 20
    assert _bodies_run(server, newest).keys() == {"Cached"}
    assert len(processes(demo.where.root)) == 2
    _python(demo.where, "flows.services", "stop")
    until("the end of server and file server", lambda: not processes(demo.where.root))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_interrupted_demo_leaves_nothing_running(
    tmp_path: Path, processes: Callable[..., dict[int, str]], until: Callable[..., Any], number: signal.Signals
) -> None:
    """Ctrl-C, and kill -9 of the demo alone, in the middle of its downloads end everything that it started."""
    running = _start(Layout(tmp_path), "flows.demo")
    until("a download", lambda: list(tmp_path.glob("blobs/*/*/*.jpg")) or running.poll() is not None, timeout_s=120)
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # as a terminal does
    else:
        running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    assert said.count("Traceback") == 0
    until("the end of all that it started", lambda: not processes(tmp_path))


def _bodies_run(server: "Api", pipeline: dict[str, Any]) -> Counter[str]:
    """How many task runs of the subflows of a pipeline run ended in which state."""
    children = [run["id"] for run in server.children(pipeline["id"])]
    return Counter(task["state_name"] for task in server.task_runs(*children))


def _start(where: Layout, module: str, *arguments: str) -> subprocess.Popen[str]:
    """``python -m module`` on a data root, in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=CHECKOUT, env=child_environment(DARKROOM_ROOT=str(where.root)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def _python(where: Layout, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m module`` on a data root, over."""
    running = _start(where, module, *arguments)
    said, _ = running.communicate(timeout=DEMO_TIMEOUT_S)
    return subprocess.CompletedProcess([module], running.returncode, said, "")
