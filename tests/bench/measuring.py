"""Measure photos of 1,024 to 4,000 px: photos a second and core, against imagededup, cleanvision and fastdup.

All read the same JPEG files, each contender on one thread of a process of its own, in turns; the time is that of
the work alone, without imports. Ours is the whole stage: sha256, EXIF, edit evidence, hashes, light, thumbnail and
Parquet. The bound is simplejpeg's scaled decode of the same files. The peers come from the package index into an
environment below --peers (imagededup brings torch: 5 GB); one that does not run is left out, and said so.

    python tests/bench/measuring.py                      # about ten minutes on two cores
    python tests/bench/measuring.py --photos 60 --rounds 1
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.contenders import peers_python
from acquire.table import Bound, Line, markdown

from tasks.sources.standin import Lens, render

PEERS = Path(__file__).resolve().parent / "peers"
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"
OURS = ("darkroom", "simplejpeg")
THEIRS = ("imagededup", "cleanvision", "fastdup")
WHAT = {
    "darkroom": "the stage measure, all columns", "simplejpeg": "scaled decode alone",
    "imagededup": "phash", "cleanvision": "all issues", "fastdup": "its run",
}  # fmt: skip
LONG_PX = (1024, 1600, 2048, 3072, 4000)
SCENE_PX, QUALITY, SEED = (4600, 3100), 88, 23
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_NUM_THREADS"), "1")


def make_photos(folder: Path, count: int) -> Path:
    """``folder`` with ``count`` JPEG files: windows of one large scene, of 3:2, lying and standing, in all sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) == count:
        return folder
    scene = render(SEED, *SCENE_PX, Lens())
    for number in range(count):
        chance, long_px = random.Random(f"{SEED}/{number}"), LONG_PX[number % len(LONG_PX)]
        width, height = long_px, round(long_px * 2 / 3)
        left, top = chance.randrange(SCENE_PX[0] - width), chance.randrange(SCENE_PX[1] - height)
        window = np.ascontiguousarray(np.rot90(scene[top : top + height, left : left + width], chance.choice((0, 1))))
        data = simplejpeg.encode_jpeg(window, quality=QUALITY, colorsubsampling="420")
        (folder / f"{number:05d}.jpg").write_bytes(data)
    return folder


def timed(python: Path, contender: str, folder: Path, work: Path) -> dict[str, float] | None:
    """Seconds of wall and CPU time, peak memory in MB and photos of one contender; None if it fails."""
    command = [str(python), str(PEERS / f"measure_{contender}.py"), str(folder), str(work)]
    environment = os.environ | ONE_THREAD
    done = subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment, check=False)
    if done.returncode:
        print(f"{contender} fails: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run(folder: Path, theirs: Path, rounds: int, peers: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """What each contender took, in turns."""
    found: dict[str, list[dict[str, float]]] = {}
    failed: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as work:
        for _ in range(rounds):
            for name in (*OURS, *peers):
                python = Path(sys.executable) if name in OURS else theirs
                figures = None if name in failed else timed(python, name, folder, Path(work))
                if figures is None:
                    failed.add(name)
                else:
                    found.setdefault(name, []).append(figures)
    return found


def main() -> None:
    """Time all contenders and print two tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=300)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--peers", type=Path, default=KEPT, help="where the peers and the photos are kept")
    options.add_argument("--only", action="append", choices=THEIRS, help="one peer; may be given several times")
    options.add_argument("--folder", type=Path, help="a folder of JPEG files of your own")
    asked = options.parse_args()
    theirs = peers_python(asked.peers / "measuring", "measuring.txt")
    folder = (asked.folder or make_photos(asked.peers / f"sizes{asked.photos}", asked.photos)).resolve()
    sizes = [Image.open(file).size for file in folder.glob("*.jpg")]
    megabytes = sum(file.stat().st_size for file in folder.glob("*.jpg")) / 1e6
    print(f"{len(sizes)} photos of {min(map(max, sizes))} to {max(map(max, sizes))} px, {megabytes:,.0f} MB\n")
    found = run(folder, theirs, asked.rounds, asked.only or THEIRS)
    cores = {name: [len(sizes) / each["cpu_s"] for each in rounds] for name, rounds in found.items()}
    lines = [
        Line(WHAT[name], name, cores[name], "photos/s/core",
             f"wall {statistics.median(each['wall_s'] for each in found[name]):.2f} s, "
             f"CPU {statistics.median(each['cpu_s'] for each in found[name]):.2f} s, "
             f"peak {max(each['peak_mb'] for each in found[name]):,.0f} MB, "
             f"{found[name][0]['kept']:,.0f} photos")
        for name in found
    ]  # fmt: skip
    print(markdown(["what", "contender", "median", "spread", ""], [line.cells() for line in lines]), "\n")
    median = {line.contender: line.median for line in lines}
    bounds = [Bound("time, of simplejpeg's scaled decode", median["simplejpeg"] / median["darkroom"], at_most=1.5)]
    bounds += [
        Bound(f"photos/s/core, of {peer}'s", median["darkroom"] / median[peer], at_least=5)
        for peer in THEIRS if peer in median
    ]  # fmt: skip
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


if __name__ == "__main__":
    main()
