"""Search, download and refresh against gallery-dl, img2dataset and icrawler, side by side on the same stand-in site.

The site runs in a process of its own and waits 50 ms before each answer. The peers are installed from the package index
into an environment that is kept below --peers; the photos that the site serves are made once and kept there too.

    python tests/bench/acquisition.py              # about ten minutes on two cores
    python tests/bench/acquisition.py --quick      # two minutes: small figures, to see that it runs
    python tests/bench/acquisition.py --only download --rounds 5

Prints one Markdown table of figures, one of bounds, and everything as JSON on the last line.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire import downloads, listings, refreshes
from acquire.contenders import downloaders, peers_python
from acquire.darkroom import Darkroom, darkroom
from acquire.photo_files import make_photos
from acquire.table import Findings, markdown

PARTS = ("download", "listing", "refresh", "memory")
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    photos: int = 2000
    hits: tuple[int, int] = (3000, 20_000)
    known: int = 20_000
    listed: int = 200_000
    has_icrawler_search: bool = True  # it asks for the sizes of 4,000 photos one by one


QUICK = Scale(photos=400, hits=(1000, 6000), known=1500, listed=10_000, has_icrawler_search=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for."""
    options = parser().parse_args(arguments)
    scale, rounds = (QUICK, 1) if options.quick else (Scale(), options.rounds)
    python = peers_python(options.peers / "environment")
    work = Path(tempfile.mkdtemp(prefix="darkroom-bench-"))
    found = Findings()
    try:
        with darkroom(work / "server") as us:
            for part in options.only or PARTS:
                print(part, file=sys.stderr, flush=True)
                new = jobs(options, scale, rounds, python, us, work)[part]()
                found.lines += new.lines
                found.bounds += new.bounds
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(markdown(["measure", "contender", "median", "spread", ""], [line.cells() for line in found.lines]), "\n")
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in found.bounds]), "\n")
    machine = {"machine": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    print(json.dumps({**machine, "rounds": rounds, "latency_ms": options.latency_ms, **found.as_json()}))


def jobs(
    options: argparse.Namespace, scale: Scale, rounds: int, python: Path, us: Darkroom, work: Path
) -> dict[str, Callable[[], Findings]]:
    """The parts by name."""
    latency_ms = options.latency_ms

    def download() -> Findings:
        photos = make_photos(options.peers / f"photos{scale.photos}", scale.photos)
        ours = [
            us.contender("Darkroom", "a refresh's: task runs, ledger, journal", "fetch-with-flow"),
            us.contender("Darkroom's tasks", "the same, without Prefect", "fetch-with-task"),
        ]
        found = downloads.compare([*ours, *downloaders(python, work, scale.photos)], photos, work, rounds, latency_ms)
        for each in ours:
            found.bounds += downloads.bounds(found, each.name)
        return found

    return {
        "download": download,
        "listing": lambda: listings.compare(python, us, work, scale.hits, latency_ms, scale.has_icrawler_search),
        "refresh": lambda: refreshes.nothing_new(us, work, scale.known, rounds, latency_ms),
        "memory": lambda: refreshes.memory(us, work, scale.listed, latency_ms),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--only", action="append", choices=PARTS, help="one part; may be given several times")
    found.add_argument("--quick", action="store_true", help="small figures, one round")
    found.add_argument("--rounds", type=int, default=3, help="of the downloads and of the refresh")
    found.add_argument("--latency-ms", type=float, default=50.0, help="that the site waits before each answer")
    found.add_argument("--peers", type=Path, default=KEPT, help="where the peers and the photos are kept")
    return found


if __name__ == "__main__":
    main()
