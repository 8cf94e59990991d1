"""API calls for each 1,000 different photos, and how many of a large search are found at all."""

import json
import subprocess
from pathlib import Path

from acquire import contenders
from acquire.contenders import Contender, Job
from acquire.darkroom import Darkroom
from acquire.listed_world import WORD
from acquire.photo_site import Site
from acquire.table import Bound, Findings, Line

TIMEOUT_S = 300
REACH = 4000  # of one search of the site
OURS = "Darkroom"


def compare(
    python: Path, us: Darkroom, work: Path, hits: tuple[int, int], latency_ms: float, has_icrawler: bool
) -> Findings:
    """One search with fewer, and one with more hits than a search can list."""
    found = Findings()
    for count in hits:
        peers = [
            Contender("gallery-dl", "as it comes: 100 a page", False, contenders.gallery_dl(python, work, 100, "-g")),
            Contender("gallery-dl, 500", "500 a page", False, contenders.gallery_dl(python, work, 500, "-g")),
        ]
        if count > REACH and has_icrawler:
            peers.append(Contender("icrawler", "500 a page", False, contenders.icrawler_search(python, 16)))
        for peer in peers:
            _note(found, count, peer.name, peer.settings, *_search(peer, work, count, latency_ms))
        with Site("listed", str(count), latency_ms) as site:
            unique = int(us.run(work / f"find-{count}", site, "find")["unique"])
        _note(found, count, OURS, "", unique, site.asked["calls_total"])
        ratio = found.median(_calls(count), OURS) / found.median(_calls(count), "gallery-dl")
        found.bounds.append(Bound(f"{_calls(count)}: Darkroom's share of gallery-dl's", ratio, at_most=0.3))
    share = found.median(_unique(hits[-1]), OURS) / hits[-1]
    found.bounds.append(Bound(f"{_unique(hits[-1])}: Darkroom's share of all", share, at_least=1.0))
    return found


def _calls(hits: int) -> str:
    return f"API calls per 1,000 photos, {hits:,} hits"


def _unique(hits: int) -> str:
    return f"photos found of {hits:,}"


def _note(found: Findings, hits: int, name: str, settings: str, unique: int, calls: int) -> None:
    """Two lines of the table."""
    note = f"{settings}; {calls:,} calls" if settings else f"{calls:,} calls"
    found.lines.append(Line(_calls(hits), name, [1000 * calls / unique], "calls", note))
    found.lines.append(Line(_unique(hits), name, [unique], "photos"))


def _search(peer: Contender, work: Path, hits: int, latency_ms: float) -> tuple[int, int]:
    """Different photos that ``peer`` lists, and the calls that it spends on them."""
    with Site("listed", str(hits), latency_ms) as site:
        job = Job(site.api_url, WORD, work / "none", hits, work / "listed")
        done = subprocess.run(
            peer.command(job), env=peer.environment(job), cwd=work, timeout=TIMEOUT_S, text=True, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return _unique_of(done.stdout), site.asked["calls_total"]


def _unique_of(told: str) -> int:
    """icrawler's driver says how many; gallery-dl prints URLs, and further renditions after a bar."""
    if told.startswith("{"):
        return int(json.loads(told)["unique"])
    return len({line for line in told.splitlines() if line.startswith("http")})
