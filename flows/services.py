"""The processes around the flows: a Prefect server, a server of reports and pictures, and the stand-in photo site.

Run: ``python -m flows.services`` (``make ui``) starts the first two in the foreground, on SQLite below the data root.
``python -m flows.services stop`` ends what ``KEEP=1 make demo`` left running.
"""

import argparse
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from storage.errors import ConfigError, DarkroomError
from storage.layout import Layout, layout, write_bytes
from storage.settings import child_environment

API_PORT, FILES_PORT, STANDIN_PORT = 4200, 4280, 4270
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 15.0
WORK_POOL = "darkroom"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Service:
    """A process that was started, where it answers, and what it writes its log to."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once ``ready``; RuntimeError with the end of its log if it ends first or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"the {self.name} did not start; its log {str(self.log)!r} ends with:\n{tail}")
            time.sleep(0.1)

    def end(self) -> None:
        """End the process, gently at first."""
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def prefect_environment(where: Layout, api_url: str, files_url: str) -> dict[str, str]:
    """What server, flows and workers share: the database, no analytics, and batches that keep the UI current."""
    recorder, persister = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER", "PREFECT_SERVER_SERVICES_EVENT_PERSISTER"
    return {
        "DARKROOM_ROOT": str(where.root),
        "DARKROOM_FILES_URL": files_url,
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(where.prefect),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,storage",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # On disk: a slot whose holder was killed together with the server is free again when its lease has run out.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{where.prefect / 'prefect.db'}",
        "PREFECT_SERVER_UI_API_URL": api_url,
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        f"{recorder}_BATCH_SIZE": "100",
        f"{recorder}_READ_BATCH_SIZE": "100",
        f"{recorder}_FLUSH_INTERVAL": "1",
        f"{persister}_BATCH_SIZE": "100",
        f"{persister}_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "100",
    }


def start(
    name: str,
    command: list[str],
    url: str,
    log: Path,
    environment: dict[str, str],
    keep: bool = False,
    listener: socket.socket | None = None,
) -> Service:
    """Start a process, which inherits ``listener``; unless ``keep``, it ends with this one, whatever ends this one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment(**environment), preexec_fn=None if keep else end_with_parent,
            pass_fds=() if listener is None else (listener.fileno(),),
        )  # fmt: skip
    return Service(name, process, url, log)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Linux: have the kernel send this process signal ``number`` when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def start_prefect(where: Layout, keep: bool = False) -> tuple[Service, Service, dict[str, str]]:
    """A Prefect server with its UI, a file server for reports, and the environment of whatever talks to them."""
    server_listener, files_listener = listen(API_PORT), listen(FILES_PORT)
    ui, files_url = address(server_listener), address(files_listener)
    environment = prefect_environment(where, f"{ui}/api", files_url)
    logs = where.prefect / "logs"
    server_command = [
        sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
        "--fd", str(server_listener.fileno()), "--timeout-keep-alive", "5", "--log-level", "warning",
    ]  # fmt: skip
    files_command = [sys.executable, "-m", "flows.files", str(where.root), str(files_listener.fileno())]
    with server_listener, files_listener:
        server = start("Prefect server", server_command, ui, logs / "server.log", environment, keep, server_listener)
        files = start("file server", files_command, files_url, logs / "files.log", environment, keep, files_listener)
    server.wait_until(lambda: answers(f"{ui}/api/health"))
    files.wait_until(lambda: answers(f"{files_url}/"))
    return server, files, environment


def start_standin(where: Layout, *options: str, keep: bool = False) -> Service:
    """The stand-in photo site with these command-line options."""
    port = free_port(STANDIN_PORT)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tasks.sources.standin", "--port", str(port), *options]
    site = start("stand-in photo site", command, url, where.prefect / "logs" / "standin.log", {}, keep)
    site.wait_until(lambda: answers(f"{url}/_standin/stats"))
    return site


def answers(url: str) -> bool:
    """Whether something at ``url`` answers with success."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def free_port(preferred: int) -> int:
    """``preferred`` if nothing on this machine listens there, else a port that the system picks."""
    with listen(preferred) as listener:
        return int(listener.getsockname()[1])


def address(listener: socket.socket) -> str:
    """Where a browser finds what ``listener`` listens for."""
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def listen(preferred: int) -> socket.socket:
    """A socket that listens on 127.0.0.1, at ``preferred`` if that is free: nobody else can take the port meanwhile.

    A Prefect server takes ten seconds until it listens; two that start at once would both think the port theirs.
    """
    for port in (preferred, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()
            continue
        return listener
    raise RuntimeError("this machine has no free port on 127.0.0.1")


@contextmanager
def ending(*services: Service) -> Iterator[None]:
    """End ``services``, last first, when the block ends."""
    try:
        yield
    finally:
        for service in reversed(services):
            service.end()


def remember(where: Layout, services: list[Service]) -> None:
    """Note the processes that stay, for ``stop``."""
    noted = [{"name": service.name, "pid": service.process.pid, "url": service.url} for service in services]
    write_bytes(where.prefect / "running.json", json.dumps(noted, indent=1).encode())


def stop(where: Layout) -> list[str]:
    """End the processes that were noted, if they are still ours; returns their names."""
    note = where.prefect / "running.json"
    noted = json.loads(note.read_text()) if note.exists() else []
    ended = [each["name"] for each in noted if _terminate(each["pid"])]
    note.unlink(missing_ok=True)
    return ended


def _terminate(pid: int) -> bool:
    """Send SIGTERM to ``pid`` if it is a Python process of this installation."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if sys.executable.encode() not in command:
            return False
        os.kill(pid, signal.SIGTERM)
    except (OSError, ProcessLookupError):
        return False
    return True


def serve() -> None:
    """Run the Prefect server and the file server until interrupted, with the work pool that prefect.yaml names."""
    where = layout()
    where.check_writable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server, files, environment = start_prefect(where)
    with ending(server, files):
        make_pool(environment)
        print(f"\n  Prefect UI   {server.url}\n  reports      {files.url}\n")
        if environment["PREFECT_API_URL"] != f"http://127.0.0.1:{API_PORT}/api":
            print(f"  port {API_PORT} was taken: export PREFECT_API_URL={environment['PREFECT_API_URL']}\n")
        print("  next, in another terminal:  make deploy, make worker;  Ctrl-C ends this", flush=True)
        try:
            server.process.wait()
        except KeyboardInterrupt:
            return


def make_pool(environment: dict[str, str]) -> None:
    """Create the process work pool unless it exists."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "work-pool", "create", WORK_POOL, "--type", "process"]
    subprocess.run([*command, "--overwrite"], env=child_environment(**environment), check=True, capture_output=True)


def check() -> None:
    """Raises ConfigError unless the Prefect server that this folder's commands talk to answers."""
    from prefect.settings import get_current_settings  # seconds to import, and nothing else here needs it

    api_url = get_current_settings().api.url
    if not (api_url and answers(f"{api_url}/health")):
        raise ConfigError(f"no Prefect server answers at {api_url}: start one with `make ui`, or set PREFECT_API_URL")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__.split("\n")[0])
    parser.add_argument("action", nargs="?", choices=["serve", "stop", "check"], default="serve")
    action = parser.parse_args().action
    try:
        if action == "stop":
            print("ended: " + (", ".join(stop(layout())) or "nothing was running"))
        elif action == "check":
            check()
        else:
            serve()
    except (DarkroomError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
