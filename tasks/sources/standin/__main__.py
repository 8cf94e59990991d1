"""Run the stand-in photo site: ``python -m tasks.sources.standin --synthetic 300``.

Prints one line, ``READY http://127.0.0.1:PORT``, and runs until it is told to end or its parent process has ended.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from tasks.sources.standin.camera import Lens
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.flickr_api import Keys
from tasks.sources.standin.server import StandIn

PARENT_POLL_S = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m tasks.sources.standin",
        description="A photo site on this machine that speaks the wire formats of Flickr and 500px: for demos and "
        "tests, without a key or a network. It prints READY and its address once it answers.",
    )
    world = found.add_mutually_exclusive_group()
    world.add_argument(
        "--photos", type=Path, metavar="DIR", help="serve the pictures of a folder (facts: its photos.csv)"
    )
    world.add_argument("--synthetic", type=int, default=300, metavar="N", help="invent N photos (default: 300)")
    found.add_argument("--seed", type=int, default=0, help="another seed, another world (default: 0)")
    found.add_argument("--lens", type=float, default=1.0, help="strength of vignetting and colour fringes, 0 to 1")
    found.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: one that is free)")
    found.add_argument(
        "--quota", type=int, default=3600, metavar="N", help="API calls allowed per hour (default: 3600)"
    )
    found.add_argument(
        "--latency-ms", type=float, default=0.0, metavar="MS", help="wait before every answer (default: 0)"
    )
    found.add_argument("--key", help="the only API key that works (default: any 32 hexadecimal digits)")
    found.add_argument("--expired-key", action="append", default=[], metavar="KEY", help="a key that has expired")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the parent's end."""
    asked = parser().parse_args(arguments)
    parent = os.getppid()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        catalogue = _catalogue(asked)
    except FileNotFoundError as error:
        parser().error(str(error))
    keys = Keys(asked.key, frozenset(asked.expired_key))
    latency_s = asked.latency_ms / 1000
    with StandIn(catalogue, latency_s=latency_s, quota_per_hour=asked.quota, port=asked.port, keys=keys) as site:
        sys.stdout.write(f"READY {site.url}\n")
        sys.stdout.flush()
        while not ended.wait(PARENT_POLL_S) and os.getppid() == parent:
            pass
    return 0


def _catalogue(asked: argparse.Namespace) -> Catalogue:
    """The world that was asked for. Raises FileNotFoundError."""
    if asked.photos is not None:
        return Catalogue.folder(asked.photos)
    return Catalogue.synthetic(asked.synthetic, asked.seed, Lens.of_strength(asked.lens))


if __name__ == "__main__":
    raise SystemExit(main())
