"""What the end-to-end tests share: a browser, the processes of a data root, a served world with a worker."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import requests
import websocket
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from flows import services
from storage.layout import Layout
from storage.settings import CHECKOUT, child_environment

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
PHOTOS, SEED = 110, 14  # of this world, 42, 18 and 25 photos fall to train, val and test
KEY = "0" * 32  # any well-formed key opens the stand-in
Answer = TypeVar("Answer")
FINAL = frozenset({"Completed", "Cached", "Failed", "Cancelled", "Crashed"})


def eventually(what: str, ask: Callable[[], Answer], timeout_s: float = 60.0, every_s: float = 0.25) -> Answer:
    """The first true answer of ``ask``; fails the test, saying ``what`` did not happen, after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)
    return answer


def processes(root: Path, command: str = "") -> dict[int, str]:
    """Command lines, by pid, of the processes whose data root is ``root`` and whose command has ``command``."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended meanwhile
            continue
        if f"DARKROOM_ROOT={root}".encode() in environment and command in line and int(folder.name) != os.getpid():
            found[int(folder.name)] = line
    return found


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[..., Any]:
    """``eventually``, for test files."""
    return eventually


@pytest.fixture(name="processes", scope="session")
def processes_fixture() -> Callable[..., dict[int, str]]:
    """``processes``, for test files."""
    return processes


class Browser:
    """One headless Chromium with one page, driven over its DevTools socket."""

    def __init__(self, profile: Path) -> None:
        binary = next(filter(None, map(shutil.which, CHROMIUM)), None)
        if binary is None:
            pytest.skip("no Chromium: apt-get install chromium")
        self.process = subprocess.Popen(
            [binary, *CHROMIUM_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        port_file = profile / "DevToolsActivePort"
        eventually("Chromium's debugging port", lambda: port_file.exists() and port_file.read_text().count("\n"))
        pages = requests.get(f"http://127.0.0.1:{port_file.read_text().split()[0]}/json/list", timeout=10).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._ids = count(1)
        self.forget()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def forget(self) -> None:
        """Start new lists of ``requested`` addresses, ``failed`` requests and console ``errors``."""
        self.requested: list[str] = []
        self.failed: list[str] = []
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """The answer to one DevTools command; what the page did meanwhile is noted."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            self._note(message["method"], message["params"])
        assert "error" not in message, message
        return message["result"]

    def _note(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requested.append(event["request"]["url"])
            case "Network.responseReceived" if event["response"]["status"] >= 400:
                self.failed.append(f"{event['response']['status']} {event['response']['url']}")
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] == "error":
                self.errors.append(json.dumps(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] == "error":
                self.errors.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        """Go to ``url`` and wait until it is loaded."""
        self.evaluate("window.isLeft = true")
        self.call("Page.navigate", url=url)
        self.until("!window.isLeft && document.readyState === 'complete'")

    def until(self, condition: str, timeout_s: float = 30.0) -> None:
        """Wait until the JavaScript ``condition`` is true."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:.0f} s: {condition}\nthe page says:\n{self.text()[:2000]}")
            time.sleep(0.1)

    def until_says(self, *words: str, timeout_s: float = 30.0) -> None:
        """Wait until the page's text has all of ``words``."""
        for word in words:
            self.until(f"document.body.innerText.includes({json.dumps(word)})", timeout_s)

    def text(self) -> str:
        """What the page says."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, label: str) -> None:
        """Click the first visible tab, link or button that says exactly ``label``."""
        found = (
            "[...document.querySelectorAll('a, button, .p-tab')]"
            f".find(each => each.innerText.trim() === {json.dumps(label)} && each.offsetParent)"
        )
        self.until(found)
        self.evaluate(f"{found}.click()")

    def resize(self, width_px: int, height_px: int) -> None:
        """Give the page a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def screenshot(self, path: Path, is_whole_page: bool = False) -> None:
        """Save what the page looks like as PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=is_whole_page)
        path.write_bytes(b64decode(picture["data"]))

    def end(self) -> None:
        """End Chromium, which ends its own children."""
        self._socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of 1280x900; skips where there is no Chromium."""
    running = Browser(tmp_path_factory.mktemp("chromium"))
    running.resize(1280, 900)
    yield running
    running.end()


@dataclass
class Api:
    """A Prefect server, asked over its REST API; like Prefect's own client it asks again when the server is busy."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        busy = Retry(total=6, backoff_factor=0.5, status_forcelist=[503], allowed_methods=None)
        self.session.mount("http://", HTTPAdapter(max_retries=busy))

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a POST."""
        answer = self.session.post(f"{self.url}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> Any:
        """The answer to a GET."""
        answer = self.session.get(f"{self.url}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """One flow run."""
        return dict(self.get(f"/flow_runs/{flow_run_id}"))

    def children(self, flow_run_id: str) -> list[dict[str, Any]]:
        """The subflow runs of a flow run."""
        return list(self.post("/flow_runs/filter", flow_runs={"parent_flow_run_id": {"any_": [flow_run_id]}}))

    def task_runs(self, *flow_run_ids: str) -> list[dict[str, Any]]:
        """The task runs of flow runs."""
        return list(self.post("/task_runs/filter", task_runs={"flow_run_id": {"any_": list(flow_run_ids)}}))

    def ended(self, flow_run_id: str, timeout_s: float = 300.0) -> dict[str, Any]:
        """The flow run, once it is over."""
        has_ended = lambda: self.flow_run(flow_run_id)["state_name"] in FINAL  # noqa: E731
        eventually(f"the end of flow run {flow_run_id}", has_ended, timeout_s)
        return self.flow_run(flow_run_id)


@pytest.fixture(scope="session")
def api() -> type[Api]:
    """``Api``, for test files."""
    return Api


@dataclass
class World:
    """A data root with a Prefect server, a file server, a stand-in photo site and a worker on it."""

    where: Layout
    ui: str
    files: str
    environment: dict[str, str]
    worker_log: Path
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(f"{self.ui}/api")

    until = staticmethod(eventually)

    def processes(self, command: str = "") -> dict[int, str]:
        """Command lines, by pid, of this world's processes whose command has ``command``."""
        return processes(self.where.root, command)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``prefect`` on the command line, from the checkout."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=CHECKOUT, env=child_environment(**self.environment), capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def ask(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of ``deployment`` as the UI does; its id."""
        deployment_id = self.api.get(f"/deployments/name/{deployment}")["id"]
        return str(self.api.post(f"/deployments/{deployment_id}/create_flow_run", parameters=parameters)["id"])

    def command_line_run(self, deployment: str, *options: str) -> str:
        """``prefect deployment run``; the id of the flow run."""
        answer = self.cli("deployment", "run", deployment, *options)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.stdout)
        assert found, answer.stdout
        return found[0]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What ``make ui``, ``make deploy`` and ``make worker`` start, and a photo site; nothing of it is left."""
    where = Layout(tmp_path_factory.mktemp("world"))
    with ExitStack() as stack:
        server, files, environment = services.start_prefect(where)
        stack.enter_context(services.ending(server, files))
        site = services.start_standin(where, "--synthetic", str(PHOTOS), "--seed", str(SEED))
        stack.enter_context(services.ending(site))
        services.make_pool(environment)
        environment |= {
            "FLICKR_API_KEY": KEY,
            "DARKROOM_FLICKR_URL": f"{site.url}/services/rest/",
            "DARKROOM_IMAGE_HOSTS": urlsplit(site.url).netloc,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        command = [
            sys.executable,
            "-m",
            "prefect",
            "worker",
            "start",
            "--pool",
            services.WORK_POOL,
            "--type",
            "process",
        ]
        log = where.prefect / "logs" / "worker.log"
        worker = services.start("worker", command, server.url, log, environment)
        stack.enter_context(services.ending(worker))
        running = World(where, server.url, files.url, environment, log)
        deployed = running.cli("deploy", "--all")
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        yield running
    eventually("the end of all processes of the world", lambda: not processes(where.root), timeout_s=15)


@pytest.fixture(scope="session")
def twins(world: World) -> list[dict[str, Any]]:
    """Two runs of different deployments that refresh one new dataset at once, over: 'pipeline/crops' is the first."""
    dataset = {"name": "twins", "queries": [{"uploaded_before": "2026-01-01T00:00:00Z"}]}
    asked = [
        world.ask("pipeline/crops", dataset=dataset, recipe="crops_thumbnail_narrow"),
        world.ask("refresh-dataset/crops", dataset=dataset),
    ]
    return [world.api.ended(flow_run_id) for flow_run_id in asked]
