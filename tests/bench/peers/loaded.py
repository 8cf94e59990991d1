"""How a loader is timed: epochs of batches in one process, and what is asked of each contender.

A contender is called as ``load_NAME.py FOLDER BATCHES EPOCHS``. FOLDER has ``photos/<label>/*.jpg``; BATCHES is
"frames" (uint8, 256 x 256, the whole photo), "training" (float, a random part of 224 x 224, mirrored or not,
normalised) or "prepare", which makes what the contender reads and is not timed.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

BATCH, FRAME_PX, INPUT_PX, WORKERS = 64, 256, 224, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDER, BATCHES = Path(sys.argv[1]), sys.argv[2]
EPOCHS = int(sys.argv[3]) if len(sys.argv) > 3 else 0


def cpu_s() -> float:
    """CPU time of this process and of its workers, which live on."""
    total_s = time.process_time()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total_s


def report(epoch: Callable[[], Iterable[torch.Tensor]]) -> None:
    """Print the seconds of each epoch, by the clock and of CPU time, and the photos in it; pixels of every batch are
    read."""
    seconds, cpu_seconds, photos, pixels = [], [], 0, 0.0
    for _ in range(EPOCHS):
        start_s, start_cpu_s, photos = time.perf_counter(), cpu_s(), 0
        for image_BCHW in epoch():
            photos += len(image_BCHW)
            pixels += float(image_BCHW[0, 0, 0, 0]) + float(image_BCHW[-1, -1, -1, -1])
        seconds.append(time.perf_counter() - start_s)
        cpu_seconds.append(cpu_s() - start_cpu_s)
    shape = [int(side) for side in image_BCHW.shape[1:]]
    sys.stdout.write(
        json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "photos": photos, "shape": shape}) + "\n"
    )


def peers_transform() -> Callable[[object], torch.Tensor]:
    """torchvision's transforms of a PIL picture, as its training references have them."""
    from torchvision.transforms import v2

    if BATCHES == "frames":
        return v2.Compose([v2.Resize((FRAME_PX, FRAME_PX)), v2.PILToTensor()])
    return v2.Compose([
        v2.RandomResizedCrop(INPUT_PX, scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3)), v2.RandomHorizontalFlip(),
        v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip
