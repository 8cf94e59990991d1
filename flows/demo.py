"""The whole pipeline without a key or a network: a stand-in photo site on this machine, a Prefect server, one run.

Run: ``make demo``; ``KEEP=1 make demo`` leaves server and UI running, and ``make stop`` ends them.
"""

import argparse
import signal
import subprocess
import sys
import time

from rich.console import Console

from flows import services
from storage.layout import layout
from storage.settings import child_environment
from tasks.errors import DarkroomError

PHOTOS = 600
SEED = 1
KEY = "0" * 32  # any well-formed key opens the stand-in
OUT = Console(highlight=False)


def main() -> int:
    """Start what is needed, run the pipeline in its own process, end what was started; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the Prefect server and its UI running")
    keep = parser.parse_args().keep
    try:
        where = layout()
        where.check_writable()
    except DarkroomError as error:
        OUT.print(f"{type(error).__name__}: {error}", style="red")
        return 1
    services.stop(where)
    began = time.monotonic()
    with OUT.status("starting the Prefect server and the stand-in photo site"):
        server, files, environment = services.start_prefect(where, keep=keep)
        if keep:
            services.remember(where, [server, files])
        site = services.start_standin(where, "--synthetic", str(PHOTOS), "--seed", str(SEED))
    OUT.print(f"Prefect UI: {server.url}  (started in {time.monotonic() - began:.0f} s)")
    with services.ending(site, *(() if keep else (files, server))):
        code = run(site, environment)
    if keep:
        OUT.print(f"\nStill running: {server.url}  (`make stop` ends it)")
    return code


def run(site: services.Service, environment: dict[str, str]) -> int:
    """Run the pipeline against ``site`` in a process that starts with the right settings; its exit code.

    When that process has ended, everything it had to tell the server has been told.
    """
    environment = environment | {
        "FLICKR_API_KEY": KEY,
        "DARKROOM_FLICKR_URL": f"{site.url}/services/rest/",
        "DARKROOM_IMAGE_HOSTS": site.url.removeprefix("http://"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal has bars; the log is in the UI
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.demo_run"], env=child_environment(**environment),
        preexec_fn=lambda: services.end_with_parent(signal.SIGKILL),  # the server, gone too, could not be told of it
    )  # fmt: skip
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
