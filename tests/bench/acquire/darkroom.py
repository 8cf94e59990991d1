"""Darkroom's side of the bench: one Prefect server for all jobs, and a process with a fresh data root for each."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from acquire.contenders import KEY, Contender, Job
from acquire.photo_site import MODULES, Site

from flows import services
from storage.layout import Layout
from storage.settings import child_environment

OURS = [sys.executable, "-m", "acquire.ours"]
QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore"}
UNBOUND = {"DARKROOM_API_CALLS_PER_HOUR": "100000000", "DARKROOM_IMAGES_PER_S": "100000", "FLICKR_API_KEY": KEY}


@dataclass(frozen=True)
class Darkroom:
    """Where its Prefect server answers."""

    api_url: str
    files_url: str

    def environment(self, root: Path, site_api_url: str) -> dict[str, str]:
        """What a worker gets: a data root, a site, and budgets that bound nothing."""
        prefect = services.prefect_environment(Layout(root), self.api_url, self.files_url)
        site = {"DARKROOM_FLICKR_URL": site_api_url, "DARKROOM_IMAGE_HOSTS": urlsplit(site_api_url).netloc}
        return child_environment(**prefect, **UNBOUND, **QUIET, **site, PYTHONPATH=MODULES)

    def run(self, root: Path, site: Site, job: str, *arguments: str) -> dict[str, float]:
        """The figures of one job of ours.py. Raises RuntimeError with its log if it fails."""
        root.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*OURS, job, *arguments], env=self.environment(root, site.api_url), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.partition("nanobind: ")[0]  # what DuckDB says of a process that ends by an exception
            raise RuntimeError(f"{job} failed:\n{said[-4000:]}")
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def contender(self, name: str, settings: str, job: str) -> Contender:
        """One of the two ways to download."""

        def command(asked: Job) -> list[str]:
            return [*OURS, job, str(asked.url_file)]

        return Contender(name, settings, True, command, lambda asked: self.environment(asked.folder, asked.api_url))


@contextmanager
def darkroom(root: Path) -> Iterator[Darkroom]:
    """A Prefect server below ``root``, and what talks to it."""
    server, files, environment = services.start_prefect(Layout(root))
    with services.ending(server, files):
        yield Darkroom(environment["PREFECT_API_URL"], files.url)
