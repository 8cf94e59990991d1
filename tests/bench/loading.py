"""Loading photos for training: ours against torchvision's, webdataset's and litdata's; memory over epochs; step time.

"training": 256-px training from the same JPEG files on two cores. Ours is a pack, streamed from the disk, with parts
cut, mirrored and normalised in the batch; theirs decode in two workers, with torchvision's transforms, from a folder,
tar files, and chunks. Two kinds of batches: uint8 frames of the whole photo, and normalised floats of a random part. An
epoch counts from the second on; contenders run in turns, each in a process of its own. webdataset and litdata come from
the package index into a folder below --peers, without what they share with us. "joint": thumbnails and patches for
crops_joint, against the original's way. "memory": resident memory by epoch of a training that streams, ours against our
own first epoch. "step": seconds a step with frames streamed from the disk, and with all of them on the device.

    python tests/bench/loading.py training                       # five minutes on two cores
    python tests/bench/loading.py joint --photos 64 --long-px 3072
    python tests/bench/loading.py memory --epochs 50
    python tests/bench/loading.py step --device cuda             # where Prefect is not installed, too
    python tests/bench/loading.py gather                         # ways to bring rows of a file into a batch
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.table import Bound, Line, markdown

from models import loader
from models.loader import FrameStore, Split, map_frames
from models.networks import build_model, forward, system_of
from models.recipes import resolve
from models.specs import Recipe
from models.systems import System

PEERS = Path(__file__).resolve().parent / "peers"
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"
THEIRS = ("imagefolder", "webdataset", "litdata")
SCENE_PX, QUALITY, SEED, LABELS = (6400, 4400), 88, 23, 10
# For all contenders: threads that wait sleep, and memory of a batch is kept for the next instead of given back, which
# costs ours two thirds of its time where glibc does it (its temporaries of a batch pass 32 MB).
CALM = {"OMP_WAIT_POLICY": "PASSIVE", "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
WHAT = {
    "darkroom": "pack, parts cut in the batch", "imagefolder": "torchvision's ImageFolder, DataLoader",
    "webdataset": "4 tar files", "litdata": "chunks of JPEG files", "joint": "pack, samples drawn in the batch",
    "original": "full decode, five resizes, 16 windows",
}  # fmt: skip


def make_photos(folder: Path, count: int, long_px: int) -> Path:
    """``folder`` with ``photos/<label>/*.jpg``: windows of one large scene, of 3:2, every fourth one standing."""
    import simplejpeg

    from tasks.sources.standin import Lens, render

    noted = folder / "made.json"
    wanted = json.dumps([count, long_px])
    if noted.is_file() and noted.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    scene = render(SEED, *SCENE_PX, Lens())
    for number in range(count):
        chance, size = random.Random(f"{SEED}/{number}"), (long_px, round(long_px * 2 / 3))
        width, height = size if number % 4 < 3 else size[::-1]
        left, top = chance.randrange(SCENE_PX[0] - width), chance.randrange(SCENE_PX[1] - height)
        window = np.ascontiguousarray(scene[top : top + height, left : left + width])
        file = folder / "photos" / str(number % LABELS) / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(simplejpeg.encode_jpeg(window, quality=QUALITY, colorsubsampling="420"))
    noted.write_text(wanted)
    return folder


def peers_folder(folder: Path) -> Path:
    """Where the peers lie, installed if need be."""
    wanted, noted = (PEERS / "loading.txt").read_text(), folder / "installed.txt"
    if not noted.is_file() or noted.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        install = ["install", "-qq", "--no-deps", "--target", str(folder), "--requirement", str(PEERS / "loading.txt")]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True)
        noted.write_text(wanted)
    return folder


def contender(name: str, folder: Path, peers: Path, batches: str, epochs: int = 0) -> dict[str, Any]:
    """What one contender prints of its epochs; {} of "prepare"."""
    command = [sys.executable, "-W", "ignore", str(PEERS / f"load_{name}.py"), str(folder), batches, str(epochs)]
    environment = os.environ | CALM | {"PYTHONPATH": str(peers), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} fails: {done.stderr.strip()[-2000:]}")
    return {} if batches == "prepare" else json.loads(done.stdout.splitlines()[-1])


def prepared(name: str, folder: Path, peers: Path) -> float:
    """The seconds that a contender takes to make what it reads, noted when it was made."""
    noted = folder / f"{name}.json"
    if not noted.is_file():
        start_s = time.perf_counter()
        contender(name, folder, peers, "prepare")
        noted.write_text(json.dumps(time.perf_counter() - start_s))
    seconds: float = json.loads(noted.read_text())
    return seconds


def compare(names: tuple[str, ...], kinds: dict[str, str], folder: Path, asked: argparse.Namespace) -> list[Line]:
    """Photos a second of each contender in each kind of batches, in turns; epochs from the second on."""
    peers = peers_folder(asked.peers / "loading")
    before_s = {name: prepared(name, folder, peers) for name in names}
    rates: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(asked.rounds):
        for kind in kinds:
            for name in names:
                figures = contender(name, folder, peers, kind, asked.epochs or 3)
                for clock, unit in (("seconds", "photos/s"), ("cpu_seconds", "photos/s/core")):
                    later = [figures["photos"] / seconds for seconds in figures[clock][1:]]
                    rates.setdefault((kind, unit, name), []).extend(later)
    return [
        Line(kinds[kind], name, values, unit, f"{WHAT[name]}; made in {before_s[name]:.0f} s")
        for (kind, unit, name), values in sorted(rates.items())
    ]


def ratios(lines: list[Line], ours: str, theirs: tuple[str, ...], at_least: float) -> list[Bound]:
    """What we deliver, of the best of theirs: by the clock and, where others use the machine, by CPU time."""
    bounds = []
    for what, unit in sorted({(line.measure, line.unit) for line in lines}):
        median = {line.contender: line.median for line in lines if (line.measure, line.unit) == (what, unit)}
        best = max(theirs, key=lambda name: median[name])
        bounds.append(Bound(f"{what}, {unit}: ours, of {best}'s", median[ours] / median[best], at_least=at_least))
    return bounds


def show(lines: list[Line], bounds: list[Bound]) -> None:
    """Print both tables, if there is anything in them."""
    if lines:
        print(markdown(["what", "contender", "median", "spread", ""], [line.cells() for line in lines]), "\n")
    if bounds:
        print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


def training(asked: argparse.Namespace) -> None:
    """256-px training: ours against the peers."""
    count, long_px = asked.photos or 1000, asked.long_px or 500
    folder = make_photos(asked.peers / f"loading{count}x{long_px}", count, long_px)
    kinds = {"frames": "uint8 batches, 256 px", "training": "normalised float batches, 224 px"}
    lines = compare(("darkroom", *THEIRS), kinds, folder, asked)
    print(f"{count:,} JPEG files of {long_px} px\n")
    show(lines, ratios(lines, "darkroom", THEIRS, at_least=5))


def joint(asked: argparse.Namespace) -> None:
    """The joint network's loader: ours against the original's way."""
    count, long_px = asked.photos or 64, asked.long_px or 3072
    folder = make_photos(asked.peers / f"joint{count}x{long_px}", count, long_px)
    lines = compare(("joint", "original"), {"training": "thumbnails and patches"}, folder, asked)
    frames = compare(("joint",), {"frames": "uint8 frames and details"}, folder, asked)
    original = [line for line in lines if line.contender == "original"]
    theirs = [Line(frames[0].measure, line.contender, line.values, line.unit) for line in original]
    print(f"{count:,} JPEG files of {long_px} px\n")
    bounds = ratios([*lines, *frames, *theirs], "joint", ("original",), at_least=10)
    show([*lines, *frames], bounds)


def random_split(folder: Path, recipe: Recipe, photos: int) -> Split:
    """A split of noise in files, as an opened pack has it."""
    spec, chance = recipe.pack, np.random.default_rng(0)
    sizes = [(spec.frame_height, spec.frame_width)]
    if spec.detail_height and spec.detail_width:
        sizes.append((spec.detail_height, spec.detail_width))
    arrays, digests = [], []
    for number, size in enumerate(sizes):
        header, noted = {"descr": "|u1", "fortran_order": False, "shape": (photos, *size, 3)}, []
        with (folder / f"{number}.npy").open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for _ in range(photos):
                data = chance.bytes(size[0] * size[1] * 3)
                stream.write(data)
                noted.append(hashlib.sha256(data).digest())
        arrays.append(map_frames(folder / f"{number}.npy", (photos, *size, 3)))
        digests.append(noted)
    names, labels = [str(number) for number in range(photos)], [str(number % LABELS) for number in range(photos)]
    frames, details = (arrays[0], arrays[1]) if len(arrays) > 1 else (arrays[0], None)
    return Split("train", frames, details, ["noise"] * photos, names, [*labels], *digests)


def epoch_of(photos: int, batch: int, number: int) -> list[NDArray[np.int64]]:
    """Batches of the same size, in the order of this epoch."""
    order = np.random.default_rng(number).permutation(photos)
    return [order[start : start + batch] for start in range(0, photos - batch + 1, batch)]


def learner(recipe: Recipe, system: System, device: torch.device) -> Callable[[loader.PhotoBatch, int], float]:
    """One training step on a batch of photos; returns the loss."""
    model = build_model(system, 0, device)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)

    def learn(photos: loader.PhotoBatch, epoch: int) -> float:
        model.train()
        drawn = system.draw(photos, 0, epoch)
        loss = system.losses(forward(model, drawn.inputs, recipe), drawn.targets)["total"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return learn


def resident_mb() -> tuple[float, float]:
    """Memory of this process: all that is in RAM, and what belongs to no file."""
    status = Path("/proc/self/status").read_text()
    all_mb, own_mb = (int(status.partition(f"{name}:")[2].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return all_mb, own_mb


def memory(asked: argparse.Namespace) -> None:
    """Resident memory after each epoch of a training that streams."""
    recipe = resolve(asked.recipe or "crops_joint_narrow")
    system, photos = system_of(recipe, [str(label) for label in range(LABELS)]), asked.photos or 96
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        split = random_split(Path(folder), recipe, photos)
        store = FrameStore(split, torch.device("cpu"), needs_detail=split.details is not None)
        learn = learner(recipe, system, torch.device("cpu"))
        found = []
        for epoch in range(asked.epochs or 50):
            for batch in store.stream(epoch_of(photos, recipe.batch_size, epoch)):
                learn(batch, epoch)
            found.append(resident_mb())
    shown_epochs = sorted({0, 1, 4, 9, len(found) // 2 - 1, len(found) - 1})
    rows = [[str(epoch + 1), *(f"{mb:,.1f} MB" for mb in found[epoch])] for epoch in shown_epochs if epoch < len(found)]
    print(f"{recipe.name}, {photos} photos, batches of {recipe.batch_size}\n")
    print(markdown(["after epoch", "resident", "of which no file's"], rows), "\n")
    show([], [Bound("resident memory, the last of the first", found[-1][0] / found[0][0], at_most=1.05)])


def step(asked: argparse.Namespace) -> None:
    """Seconds a step with frames from the disk, and with all of them on the device, in turns."""
    device, recipe = torch.device(asked.device), resolve(asked.recipe or "categories_resnet18")
    system = system_of(recipe, [str(label) for label in range(LABELS)])
    batch, photos = asked.batch_size or recipe.batch_size, asked.photos or 2048
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        split = random_split(Path(folder), recipe, photos)
        stores = stores_of(split, device)
        learn = learner(recipe, system, device)
        seconds: dict[str, list[float]] = {name: [] for name in stores}
        for epoch in range((asked.epochs or 4) + 1):
            for name, store in stores.items():
                each = list(step_seconds(store, learn, epoch_of(photos, batch, epoch), epoch))
                seconds[name] += each[2:] if epoch else []  # the first epoch compares digests and warms up
    lines = [
        Line("a step", name, [1000 * value for value in values], "ms", f"{batch} photos")
        for name, values in seconds.items()
    ]
    median = {line.contender: line.median for line in lines}
    print(f"{recipe.name} on {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'the CPU'}\n")
    bounds = [
        Bound(f"a step from {name}, of resident", median[name] / median["resident"], at_most=1.05)
        for name in median if name != "resident"
    ]  # fmt: skip
    show(lines, bounds)


def stores_of(split: Split, device: torch.device) -> dict[str, FrameStore]:
    """The photos resident (on a CPU: in memory), as the loader would have them, and from the disk in any case."""
    real, disk, resident = (FrameStore(split, device, split.details is not None) for _ in range(3))
    loader.settle([real], loader.room_on(device))
    loader.settle([resident], sys.maxsize)
    kind = "resident" if real.is_resident else "streamed"
    return {"resident": resident, f"the real loader ({kind})": real, "the disk": disk}


def step_seconds(
    store: FrameStore, learn: Callable[[loader.PhotoBatch, int], float], batches: list[NDArray[np.int64]], epoch: int
) -> Iterator[float]:
    """Of each step, from one loss to the next."""
    before_s = time.perf_counter()
    for photos in store.stream(batches):
        learn(photos, epoch)
        now_s = time.perf_counter()
        yield now_s - before_s
        before_s = now_s


def gather(asked: argparse.Namespace) -> None:
    """Ways to bring rows of a file into a batch: all from the system's cache."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        for height, width, photos, batch in ((256, 256, 2000, 64), (1365, 2048, 150, 32)):
            ways = gathering_ways(Path(folder) / "frames.npy", (photos, height, width, 3), batch)
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(3 * asked.rounds + 1):
                rows = np.random.default_rng(turn).permutation(photos)[:batch]
                for name, way in ways.items():
                    start_s = time.perf_counter()
                    way(rows)
                    seconds[name] += [time.perf_counter() - start_s] if turn else []
            size_gb = batch * height * width * 3 / 1e9
            what = f"{batch} of {width} x {height}"
            lines += [Line(what, name, [size_gb / each for each in values], "GB/s") for name, values in seconds.items()]
    show(lines, [])


def gathering_ways(path: Path, shape: tuple[int, ...], batch: int) -> dict[str, Callable[[NDArray[np.int64]], object]]:
    """By name: each brings the frames of given rows together."""
    frame = np.random.default_rng(0).integers(0, 256, shape[1:], dtype=np.uint8)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _ in range(shape[0]):
            stream.write(frame.data)
    mapped = map_frames(path, shape)
    tensor = torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8)[128:].view(shape)
    out = np.empty((batch, *shape[1:]), np.uint8)
    reader = loader.FrameReader(mapped, None)
    return {
        "numpy, map[rows]": lambda rows: mapped[rows],
        "numpy, map[sorted rows]": lambda rows: mapped[np.sort(rows)],
        "numpy.take into used memory": lambda rows: np.take(mapped, rows, axis=0, out=out, mode="clip"),
        "torch.index_select into used memory": lambda rows: torch.index_select(
            tensor, 0, torch.from_numpy(rows), out=torch.from_numpy(out)
        ),
        "ours: read into used memory": reader.read,
    }


def main() -> None:
    """Run one part."""
    parts = {"training": training, "joint": joint, "memory": memory, "step": step, "gather": gather}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("part", choices=parts)
    options.add_argument("--photos", type=int)
    options.add_argument("--long-px", type=int, help="the longer side of the JPEG files")
    options.add_argument("--epochs", type=int)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--recipe")
    options.add_argument("--batch-size", type=int)
    options.add_argument("--device", default="cpu")
    options.add_argument("--peers", type=Path, default=KEPT, help="where the peers and the photos are kept")
    asked = options.parse_args()
    parts[asked.part](asked)


if __name__ == "__main__":
    main()
