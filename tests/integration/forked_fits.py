"""Tiny packs and recipes, and runs of ``models.fit`` in processes that a test may kill: ``python forked_fits.py``.

Told line by line: ``start RUN.json`` or ``start RUN.json RANK SIZE PORT`` forks one and answers with its process id;
``wait PID`` answers with how it ended. So the seconds that importing torch takes are spent once.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn

from models import fit, jobs, loop, training  # noqa: F401  (jobs imports what it runs; here it is to be there before)
from models.categories import networks, system  # noqa: F401
from models.categories.spec import CategorySpec
from models.frames import PackSpec
from models.recipes import resolve
from models.specs import GuardSpec, OptimiserSpec, Recipe, ScheduleSpec

LABELS = ("blue", "green", "red")
FRAME = PackSpec(24, 24)
WAIT_S = 60
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]


class PlainNet(nn.Module):
    """A network without normalisation over the batch, so that its parts may be trained apart. 8 x 8 cells of colour."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(128, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"label": self.head(self.trunk(image))}


def tiny_recipe(**changes: Any) -> Recipe:
    """ResNet-18 with 8 channels a stage, batch normalisation, averaged weights and one cycle: an epoch in 0.1 s."""
    tiny = replace(
        resolve("categories_narrow"),
        name="tiny",
        system=CategorySpec("resnet18", input_px=16, width=0.125, label_smoothing=0.1),
        pack=FRAME,
        optimiser=OptimiserSpec("adamw", lr=5e-3, weight_decay=0.02, max_gradient_norm=5.0),
        schedule=ScheduleSpec("one_cycle", warmup_fraction=0.25),
        guards=GuardSpec(constant_outputs_after_epoch=1000),
        batch_size=16,
        epochs=3,
        ema_decay=0.9,
    )
    return replace(tiny, **changes)


def coloured(rng: np.random.Generator, label_N: np.ndarray) -> np.ndarray:
    """Noise [N, H, W, 3] with more of the colour that the label names."""
    noise_NHWC = rng.normal(110, 30, (len(label_N), FRAME.frame_height, FRAME.frame_width, 3))
    more_N3 = 40.0 * (label_N[:, None] == [2, 1, 0])
    return (noise_NHWC + more_N3[:, None, None]).clip(0, 255).astype(np.uint8)


def write_pack(folder: Path, counts: dict[str, int], draw: Draw = coloured) -> Path:
    """A pack as ``models/loader.py`` describes it, and beside it labels.parquet."""
    folder.mkdir(parents=True)
    entries, labels = {}, []
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng(number)
        label_N = np.arange(count) % len(LABELS)
        frames = draw(rng, label_N)
        np.save(folder / f"{split}.npy", frames)
        ids = [f"{split}-{n}" for n in range(count)]
        digests = [hashlib.sha256(frame.tobytes()).digest() for frame in frames]
        rows = {"source": ["camera"] * count, "photo_id": ids, "owner_id": ids, "frame_sha256": digests}
        pq.write_table(pa.table(rows), folder / f"{split}.parquet")
        labels += [{"source": "camera", "photo_id": i, "label": LABELS[n]} for i, n in zip(ids, label_N, strict=True)]
        sha256 = hashlib.sha256((folder / f"{split}.parquet").read_bytes()).hexdigest()
        files = {"frames": f"{split}.npy", "details": None, "rows": f"{split}.parquet"}
        entries[split] = {"photos": count, **files, "rows_sha256": sha256}
    (folder / "pack.json").write_text(json.dumps({"version": 2, **asdict(FRAME), "splits": entries}))
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    return folder


def write_request(path: Path, run_dir: Path, pack: Path, recipe: Any, **values: Any) -> Path:
    """A RUN.json for one CPU thread, with the pack's labels."""
    recipe = recipe.as_dict() if isinstance(recipe, Recipe) else recipe
    request = {"run_id": "r", "run_dir": str(run_dir), "pack_dir": str(pack), "recipe": recipe}
    request |= {"labels": str(pack / "labels.parquet"), "device": "cpu", "threads": 1}
    path.write_text(json.dumps({**request, **values}))
    return path


class Forks:
    """This script in a process of its own, and what it is told. Its runs get SIGTERM when it ends."""

    def __init__(self) -> None:
        command, pipe = [sys.executable, __file__], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, *words: Any) -> int:
        """Its answer to one line."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, request: Path) -> int:
        """The id of a process that does what a RUN.json says."""
        return self.ask("start", request)

    def start_two(self, request: Path) -> list[int]:
        """The ids of two that do it together."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        return [self.ask("start", request, rank, 2, port) for rank in (0, 1)]

    def wait(self, *pids: int) -> list[int]:
        """How they ended."""
        return [self.ask("wait", pid) for pid in pids]

    def kill(self) -> None:
        """End it, however it goes."""
        with self.process as process:
            process.kill()


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl of one kind."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [found for line in lines if line.endswith("\n") and (found := json.loads(line))["event"] == kind]


def wait_until(holds: Callable[[], Any]) -> None:
    """Return once ``holds``; fail if that takes too long."""
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.0005)


def child(request: str, rank: str = "0", size: str = "1", port: str = "0") -> int:
    """The exit code of the command, in this process; ``rank`` and so on as ``torchrun`` would say."""
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    try:
        return fit.main([request])
    except BaseException:  # noqa: BLE001  the edge of a process
        traceback.print_exc()
        return 1


def main() -> None:
    """Until the end of the input."""
    networks.NETWORKS["plain"] = lambda classes, width: PlainNet(classes)
    for line in sys.stdin:
        what, *arguments = line.split()
        if what == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(int(arguments[0]), 0)[1])
        elif not (answer := os.fork()):
            os._exit(child(*arguments))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
