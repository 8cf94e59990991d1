"""A refresh of 20,000 photos after one new photo arrived: seconds, and which tasks ran instead of being cached.

The photos are small JPEGs of a folder, all different. The first refresh curates and publishes all of them; then one
photo is added and the dataset refreshed again, in a process of its own, with a Prefect server beside it.

    python tests/bench/rerun.py                # about ten minutes on two cores
    python tests/bench/rerun.py --photos 2000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.table import Bound, markdown

WIDTH_PX, HEIGHT_PX = 144, 96
WANTED_S = 15.0


def draw(folder: Path, number: int) -> None:
    """Write photo ``number`` of the folder: ten blots on a slope, whatever else the number says."""
    import numpy as np
    import simplejpeg

    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    picture = rng.uniform(0, 255, 3) + (x[..., None] * rng.normal(0, 1, 3) + y[..., None] * rng.normal(0, 1, 3))
    for _ in range(10):
        at_x, at_y, size_px = rng.uniform(0, WIDTH_PX), rng.uniform(0, HEIGHT_PX), rng.uniform(4, 40)
        picture[np.hypot(x - at_x, y - at_y) < size_px] = rng.uniform(0, 255, 3)
    picture = (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    (folder / f"{number:06d}.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=85))


def refresh(folder: str) -> dict[str, Any]:
    """One refresh of the folder, as a worker does it: seconds, version, and the states of its tasks by name."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    from flows.refresh import refresh_dataset

    rules = {"min_long_px": 1, "min_short_px": 1, "aspect": None}
    dataset = {"name": "bench", "source": "folder", "queries": [{"path": folder}], "filter": rules}
    began_s = time.perf_counter()
    snapshot = refresh_dataset(dataset, announce=False, allow_jump=True)
    seconds = time.perf_counter() - began_s
    with get_client(sync_client=True) as client:
        [run] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        ran: Counter[str] = Counter()
        of_run, offset = FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), 0
        while found := client.read_task_runs(flow_run_filter=of_run, offset=offset):
            ran.update(f"{task.name.split(' ')[0]}: {task.state_name}" for task in found)
            offset += len(found)
    return {
        "seconds": seconds,
        "version": snapshot.version,
        "counts": snapshot.counts,
        "tasks": dict(sorted(ran.items())),
    }


def in_a_process(environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """``refresh`` in a process of its own."""
    command = [sys.executable, __file__, "--refresh", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Make the photos, refresh three times, print what each refresh took."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=20_000)
    options.add_argument("--refresh", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.refresh:
        print(json.dumps(refresh(asked.refresh)))
        return
    from flows import services
    from storage.layout import Layout

    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as work:
        folder, root = Path(work) / "photos", Path(work) / "root"
        folder.mkdir()
        root.mkdir()
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(draw, folder), range(asked.photos), chunksize=100))
        server, files, environment = services.start_prefect(Layout(root))
        with services.ending(server, files):
            runs = {f"all {asked.photos:,} are new": in_a_process(environment, folder)}
            runs["nothing is new"] = in_a_process(environment, folder)
            draw(folder, asked.photos)
            runs["one photo is new"] = again = in_a_process(environment, folder)
    rows = [
        [name, f"{run['seconds']:.1f} s", f"version {run['version']}", str(run["tasks"])] for name, run in runs.items()
    ]
    print(markdown(["refresh when", "time", "", "tasks"], rows), "\n")
    sharded = [again["tasks"].get(f"{stage}: Completed", 0) for stage in ("measure", "rotate")]
    bounds = [
        Bound("one new photo: seconds", again["seconds"], at_most=WANTED_S),
        Bound("one new photo: shards measured", sharded[0], at_most=1),
        Bound("one new photo: shards rotated", sharded[1], at_most=1),
    ]
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


if __name__ == "__main__":
    main()
