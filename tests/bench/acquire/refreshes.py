"""What a refresh costs when there is nothing new, and the memory of one that lists very many photos."""

from pathlib import Path
from urllib.parse import urlsplit

from acquire.darkroom import Darkroom
from acquire.photo_site import Site
from acquire.table import Bound, Findings, Line

OURS = "Darkroom"


def nothing_new(us: Darkroom, work: Path, photos: int, rounds: int, latency_ms: float) -> Findings:
    """``photos`` are known and here; whole refreshes, from the first line of the flow to the snapshot.

    The first makes the snapshot and is not timed. Beyond the windows: all but the time in which the site was asked.
    """
    found, root, runs = Findings(), work / "refresh", []
    with Site("listed", str(photos), latency_ms) as site:
        us.run(root, site, "remember", urlsplit(site.url).netloc, str(photos), "1", "files")
        first = us.run(root, site, "refresh")
        for _ in range(rounds):
            before = site.stats()
            runs.append(us.run(root, site, "refresh") | {"calls": site.stats()["calls_total"] - before["calls_total"]})
    what = f"refresh with nothing new, {photos:,} known"
    beyond = [run["seconds"] - run["calls"] * latency_ms / 1000 for run in runs]
    searches = ", ".join(f"{run['find_s']:.1f}" for run in runs)
    note = f"search {searches} s; the first one {first['seconds']:.0f} s"
    found.lines += [
        Line(what, OURS, [run["seconds"] for run in runs], "s", note),
        Line(f"{what}: API calls", OURS, [run["calls"] for run in runs], "calls"),
    ]
    found.bounds += [
        Bound(f"{what}: seconds beyond the site's {latency_ms:g} ms a call", max(beyond), at_most=10),
        Bound(f"{what}: image requests", site.asked["images_total"], at_most=0),
        Bound(f"{what}: snapshots published", max(run["version"] for run in runs), at_most=1),
    ]
    return found


def memory(us: Darkroom, work: Path, photos: int, latency_ms: float) -> Findings:
    """Peak memory of the process that lists ``photos`` and asks which are wanted and held; half were downloaded."""
    found = Findings()
    with Site("listed", str(photos), latency_ms) as site:
        us.run(work / "memory", site, "remember", urlsplit(site.url).netloc, str(photos), "0.5", "no files")
        peaks = us.run(work / "memory", site, "peak")
    what = f"peak memory, {photos:,} listed"
    note = ", ".join(f"{name} {peaks[f'{name}_mb']:.0f}" for name in ("start", "search", "wanted", "held", "facts"))
    seconds = f"search {peaks['seconds']:.0f} s, {peaks['windows']:.0f} windows, {site.asked['calls_total']:,} calls"
    found.lines.append(Line(what, OURS, [peaks["facts_mb"]], "MB", f"{note} MB; {seconds}"))
    found.bounds += [
        Bound(f"{what}: MB", peaks["facts_mb"], at_most=1000),
        Bound(f"{what}: photos found", peaks["unique"], at_least=photos),
    ]
    return found
