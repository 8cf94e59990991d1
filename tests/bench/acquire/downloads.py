"""Photos per second, downloaded and verified: every contender fetches the same files from a site started anew for it.

The clock starts when the site is asked for the first file and stops at the last change of a file below the
contender's folder, so that neither start-up nor icrawler's five idle seconds at the end count. The bytes of every photo
are compared with the site's afterwards. Who does not decode what it fetched is timed with a second pass over its files
too, the pass that we make ourselves while downloading, in two processes.
"""

import hashlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from acquire.contenders import Contender, Job
from acquire.photo_site import Site
from acquire.table import Bound, Findings, Line

from tasks.pictures import imaging
from tasks.sources.standin import Catalogue
from tasks.sources.standin.sizes import ORIGINAL, sized

TIMEOUT_S = 600
OURS = "Darkroom"
VERIFIED, UNVERIFIED = "photos downloaded and verified", "photos downloaded, not looked at"


@dataclass(frozen=True)
class Timed:
    """One run: seconds to fetch, seconds of the pass that verifies (0 if it did so itself), photos that came whole,
    and seconds that the contender (its start too) and the site computed.
    """

    fetch_s: float
    verify_s: float
    photos: int
    cpu_s: float
    site_cpu_s: float


def addresses(site: Site, folder: Path) -> Iterator[str]:
    """The URL of each original of the folder, in the order of their ids."""
    for photo in sorted(Catalogue.folder(folder).photos(), key=lambda photo: photo.id):
        found = sized(photo, ORIGINAL)
        assert found is not None
        yield f"{site.url}/{found.path}"


def run(contender: Contender, photos: Path, work: Path, latency_ms: float) -> Timed:
    """Let ``contender`` fetch all files of ``photos`` once."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    log = work / f"{contender.name}.log"
    with Site("folder", str(photos), latency_ms) as site, log.open("w") as stream:
        urls = list(addresses(site, photos))
        (work / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        before = _children_cpu_s()
        job = Job(site.api_url, photos.name, work / "urls.txt", len(urls), out)
        subprocess.run(
            contender.command(job), stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=work,
            env=contender.environment(job), timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        cpu_s = _children_cpu_s() - before
    started = site.asked["first_image_at"]
    if started is None:
        raise RuntimeError(f"{contender.name} asked for no photo:\n{log.read_text()[-4000:]}")
    last = max(path.stat().st_ctime for path in out.rglob("*") if path.is_file() and "prefect" not in path.parts)
    pictures = [path for path in out.rglob("*") if path.suffix in {".jpg", ".jpeg"}]
    verify_s = 0.0 if contender.verifies else verify(pictures)
    whole = len(digests(photos.glob("*.jpg")) & digests(pictures))
    if whole < min(len(urls), contender.most or len(urls)):
        raise RuntimeError(f"{contender.name} brought {whole} of {len(urls)} photos:\n{log.read_text()[-4000:]}")
    return Timed(last - started, verify_s, whole, cpu_s, site.asked["cpu_s"])


def digests(files: Iterable[Path]) -> set[str]:
    """What the files are, whatever they are called."""
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _children_cpu_s() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def verify(files: list[Path]) -> float:
    """Seconds to decode all ``files`` as our own download does."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_is_whole, files[:2]))  # the processes have started
        began = time.monotonic()
        assert all(pool.map(_is_whole, files, chunksize=50))
        return time.monotonic() - began


def _is_whole(file: Path) -> bool:
    """Whether the file decodes to its last pixel."""
    try:
        imaging.verify(file.read_bytes())
    except imaging.BadImage:
        return False
    return True


def compare(everyone: list[Contender], photos: Path, work: Path, rounds: int, latency_ms: float) -> Findings:
    """Every contender once a round, each round beginning with another one."""
    runs: dict[str, list[Timed]] = {contender.name: [] for contender in everyone}
    for number in range(rounds):
        for contender in everyone[number % len(everyone) :] + everyone[: number % len(everyone)]:
            timed = run(contender, photos, work, latency_ms)
            runs[contender.name].append(timed)
            print(f"  round {number + 1}: {contender.name}: {timed}", file=sys.stderr, flush=True)
    found = Findings()
    for contender in everyone:
        found.lines += _lines(contender, runs[contender.name])
    return found


def _lines(contender: Contender, runs: list[Timed]) -> list[Line]:
    """Photos per second as it comes, and verified."""
    cpu = f"CPU {runs[0].cpu_s:.1f} s, site {runs[0].site_cpu_s:.1f} s"
    note = f"{contender.settings}; {runs[0].photos:,} photos whole; {cpu}"
    verified = Line(VERIFIED, contender.name, [run.photos / (run.fetch_s + run.verify_s) for run in runs], "/s", note)
    if contender.verifies:
        return [verified]
    return [verified, Line(UNVERIFIED, contender.name, [run.photos / run.fetch_s for run in runs], "/s")]


def bounds(found: Findings, ours: str) -> list[Bound]:
    """Our verified photos per second against the others' verified, and against what they do without looking."""
    mine = found.median(VERIFIED, ours)
    theirs = [line for line in found.lines if not line.contender.startswith(OURS)]
    best = {what: max(line.median for line in theirs if line.measure == what) for what in (VERIFIED, UNVERIFIED)}
    slow = found.median(UNVERIFIED, "gallery-dl")
    return [
        Bound(f"{ours}, times the best peer, both verified", mine / best[VERIFIED], at_least=1.0),
        Bound(f"{ours}, verified, times the best peer that does not look", mine / best[UNVERIFIED], at_least=1.0),
        Bound(f"{ours}, verified, times gallery-dl unverified", mine / slow, at_least=5.0),
    ]
