"""The peers' own environment, and how each peer is told to fetch the same photos.

Each gets the settings that were fastest for it on two cores.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
KEY = "0" * 32
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
ITS_PER_PAGE = 100  # gallery-dl's
Command = list[str]


@dataclass(frozen=True)
class Job:
    """What a contender is given: the site, the word that finds all photos, their addresses, and where to put them."""

    api_url: str
    word: str
    url_file: Path
    photos: int
    folder: Path


@dataclass(frozen=True)
class Contender:
    """``command`` gives what fetches a job's photos; ``verifies``: whether it decodes each of them while it is at it.

    ``most``: the photos that it gets at most, where its pace is even and all of them would take minutes.
    """

    name: str
    settings: str
    verifies: bool
    command: Callable[[Job], Command]
    environment: Callable[[Job], dict[str, str]] = lambda job: without_keys()
    most: int | None = None


def peers_python(folder: Path, requirements: str = "requirements.txt") -> Path:
    """The interpreter of an environment of peers, which is made if it is not there, or not of these versions."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted, noted = (PEERS / requirements).read_text(), folder / "installed.txt"
    if not noted.is_file() or noted.read_text() != wanted:
        venv.create(folder, with_pip=False, clear=True)
        install = ["install", "-qq", "--requirement", str(PEERS / requirements)]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
        noted.write_text(wanted)
    return python


def gallery_dl(python: Path, work: Path, per_page: int, *options: str) -> Callable[[Job], Command]:
    """A search, ``per_page`` rows a call, without its pauses between calls; one file after the other, as ever."""
    api = {"api-key": KEY, "sleep-request": 0, "metadata": True, "filename": "{id}.{extension}", "directory": []}
    http = {"chunk-size": 1 << 20, "progress": None, "mtime": False}
    config = {"extractor": {"flickr": api}, "downloader": {"http": http}, "cache": {"file": None}}

    def command(job: Job) -> Command:
        file = work / "gallery-dl.json"
        file.write_text(json.dumps(config))
        more = "" if per_page == ITS_PER_PAGE else f"&per_page={per_page}"
        driver = [str(python), str(PEERS / "run_gallery_dl.py"), job.api_url, "--config-ignore", "--config", str(file)]
        return [*driver, "--dest", str(job.folder), *options, f"https://www.flickr.com/search/?text={job.word}{more}"]

    return command


def icrawler(python: Path, threads: int) -> Callable[[Job], Command]:
    """Its crawler of URL lists."""
    driver = [str(python), str(PEERS / "run_icrawler.py"), "urls"]
    return lambda job: [*driver, str(job.url_file), str(job.folder), str(threads)]


def icrawler_search(python: Path, threads: int) -> Callable[[Job], Command]:
    """Its Flickr crawler, which asks for the sizes of each photo; it only counts what it would fetch."""
    driver = [str(python), str(PEERS / "run_icrawler.py"), "flickr"]
    return lambda job: [*driver, job.api_url, job.word, str(job.folder), str(threads)]


def img2dataset(python: Path, processes: int, threads: int, mode: str) -> Callable[[Job], Command]:
    """One shard for each process, so that none waits for the other's end."""
    driver = [str(python), str(PEERS / "run_img2dataset.py")]

    def command(job: Job) -> Command:
        shard = -(-job.photos // processes)
        return [*driver, str(job.url_file), str(job.folder), str(processes), str(threads), str(shard), mode]

    return command


def downloaders(python: Path, work: Path, photos: int) -> list[Contender]:
    """Everyone but us."""
    few = max(50, photos // 4)
    return [
        Contender(
            "gallery-dl", "500 a page, no pauses; one connection", False,
            gallery_dl(python, work, 500, "--quiet", "--range", f"1-{few}"), most=few,
        ),
        Contender("icrawler", "URL list, 16 threads", False, icrawler(python, 16)),
        Contender("img2dataset", "URL list, 2 x 32 threads, decodes", True, img2dataset(python, 2, 32, "decode")),
        Contender("img2dataset raw", "URL list, 2 x 32 threads", False, img2dataset(python, 2, 32, "raw")),
    ]  # fmt: skip


def without_keys() -> dict[str, str]:
    """What a peer may know."""
    return {name: value for name, value in os.environ.items() if name != "FLICKR_API_KEY"} | QUIET
