"""The site that all contenders ask: the stand-in in a process of its own, and what it was asked.

``python -m acquire.photo_site folder DIR LATENCY_MS`` serves files, ``... listed COUNT LATENCY_MS`` photos that are
only listed. It prints READY and its address, and, when its standard input ends, what it was asked as JSON.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from acquire.listed_world import listed_world

from tasks.sources.standin import Catalogue, HostHabits, StandIn
from tasks.sources.standin.answer import Answer
from tasks.sources.standin.images import ImageHost

NO_QUOTA = 1 << 30
MODULES = os.pathsep.join(str(Path(__file__).resolve().parents[up]) for up in (1, 3))  # where children look for them


class TimedHost(ImageHost):
    """Notes when the first file was asked for."""

    first_at: float | None = None

    def answer(self, path: str, headers: Mapping[str, str], client: str) -> Answer:
        """As ever."""
        self.first_at = self.first_at or time.time()
        return super().answer(path, headers, client)


def serve(kind: str, what: str, latency_ms: str) -> None:
    """Serve until standard input ends."""
    catalogue = Catalogue.folder(what) if kind == "folder" else listed_world(int(what))
    with StandIn(catalogue, latency_s=float(latency_ms) / 1000, quota_per_hour=NO_QUOTA) as site:
        began = time.process_time()
        host = site.images = TimedHost(catalogue, site.faults, HostHabits())
        print(f"READY {site.url}", flush=True)
        sys.stdin.read()
        told = {"first_image_at": host.first_at, "cpu_s": time.process_time() - began}
        print(json.dumps(site.stats() | told), flush=True)


@dataclass
class Site:
    """A running site; a context manager. ``asked`` says what it was asked, once the block has ended."""

    kind: str
    what: str
    latency_ms: float
    url: str = ""
    asked: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> "Site":
        command = [sys.executable, "-m", "acquire.photo_site", self.kind, self.what, str(self.latency_ms)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": MODULES}
        )
        assert self._process.stdout is not None
        ready, _, self.url = self._process.stdout.readline().strip().partition(" ")
        if ready != "READY":
            raise RuntimeError(f"the photo site did not start: {' '.join(command)}")
        return self

    @property
    def api_url(self) -> str:
        """Where its API answers."""
        return f"{self.url}/services/rest/"

    def stats(self) -> dict[str, Any]:
        """What it was asked so far."""
        return dict(requests.get(f"{self.url}/_standin/stats", timeout=30).json())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told, _ = self._process.communicate(timeout=30)
        if error is None:
            self.asked = json.loads(told)


if __name__ == "__main__":
    serve(*sys.argv[1:])
