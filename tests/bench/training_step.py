"""Training images a second of ResNet-18, 34 and 50 at 224 px: our step against timm's train step.

One step: forward, cross-entropy, backward, SGD with momentum, from images that lie on the device as floats. On CUDA in
bfloat16 (autocast) and channels_last, elsewhere in float32. Ours is the step of ``models.loop``, which knows the loss
before it lets the weights change; "whole" also draws the images (random part, colours, normalisation) from uint8
frames of 256 px on the device. Theirs is timm's model and optimiser under a step in the order of its ``train.py``,
which reads the loss after every forward pass; "blind" reads none, the most that any loop could do. Nobody clips
gradients or averages weights. timm comes from the package index into a folder below --peers, without its dependencies,
so that all run on the same torch in one process, in turns; where it cannot be had, torchvision's networks under the
same plain step take its place, and the table says so. FLOPs are counted by torch; utilisation is of the device's
published dense peak, or of the best matrix product measured here where no peak is known.

    python tests/bench/training_step.py                                # on a GPU: five minutes
    python tests/bench/training_step.py --compile --batch-size 256
    python tests/bench/training_step.py --network resnet18 --batch-size 8 --steps 2 --rounds 2       # two CPU cores
"""

import argparse
import importlib
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.table import Bound, Line, markdown

from models.distributed import World
from models.loader import PhotoBatch
from models.loop import add_gradients
from models.networks import build_model, system_of
from models.optimisers import make_optimiser
from models.randomness import photo_keys
from models.recipes import resolve
from models.systems import Batch

PEERS = Path(__file__).resolve().parent / "peers"
KEPT = Path(tempfile.gettempdir()) / "darkroom-bench"
NETWORKS = ("resnet18", "resnet34", "resnet50")
CLASSES = 1000
BF16_PEAK_TFLOPS = {  # dense, from the makers' data sheets
    "H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 312.0, "L40S": 362.0, "A10": 125.0, "L4": 121.0,
}  # fmt: skip
Step = Callable[[], None]


def timm_module(folder: Path) -> ModuleType | None:
    """timm, installed if need be; None where it cannot be had."""
    sys.path.append(str(folder))
    try:
        return importlib.import_module("timm")
    except ImportError:
        install = ["install", "-qq", "--retries", "1", "--no-deps", "--target", str(folder)]
        command = [sys.executable, "-m", "pip", *install, "--requirement", str(PEERS / "training.txt")]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
    importlib.invalidate_caches()
    return importlib.import_module("timm")


def our_steps(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Step]:
    """Our step from ready images, and the whole one from frames."""
    recipe = resolve(f"categories_{name}")
    optimiser_spec = replace(recipe.optimiser, max_gradient_norm=None)
    recipe = replace(
        recipe, optimiser=optimiser_spec, batch_size=asked.batch_size, compile=asked.compile, ema_decay=None
    )
    system = system_of(recipe, [f"{number:04d}" for number in range(CLASSES)])
    model = build_model(system, 0, device).train()
    optimiser = make_optimiser(model, recipe.optimiser)
    size = (asked.batch_size, 3, recipe.pack.frame_height, recipe.pack.frame_width)
    rows_B = np.arange(asked.batch_size)
    frame_BCHW = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = [system.classes[row % CLASSES] for row in rows_B]
    photos = PhotoBatch(rows_B, photo_keys(map(str, rows_B)), frame_BCHW, None, labels)
    ready = system.draw(photos, 0, 0)

    def learn(batch: Batch) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = add_gradients(recipe, system, model, [batch], 1, asked.batch_size, World()).get()
        if math.isfinite(loss):
            optimiser.step()

    return {"darkroom": lambda: learn(ready), "darkroom, whole": lambda: learn(system.draw(photos, 0, 0))}


def their_step(model: nn.Module, optimiser: torch.optim.Optimizer, asked: argparse.Namespace, is_blind: bool) -> Step:
    """Forward under autocast, loss, backward, step, in the order of timm's ``train.py``."""
    device = next(model.parameters()).device
    image_B3HW = torch.randn(asked.batch_size, 3, 224, 224, device=device)
    if device.type == "cuda":
        image_B3HW = image_B3HW.contiguous(memory_format=torch.channels_last)
    label_B = torch.arange(asked.batch_size, device=device) % CLASSES

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = functional.cross_entropy(model(image_B3HW), label_B)
        if not is_blind:
            loss.item()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return step


def their_steps(name: str, timm: ModuleType | None, asked: argparse.Namespace, device: torch.device) -> dict[str, Step]:
    """timm's steps; without timm those of torchvision's network under torch's SGD."""
    create = partial(timm.create_model, name) if timm else getattr(torchvision.models, name)
    model = create(num_classes=CLASSES)
    order = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    model = model.to(device, memory_format=order).train()
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-5}
    if timm:
        optimiser = importlib.import_module("timm.optim").create_optimizer_v2(model, opt="momentum", **options)
    else:
        optimiser = torch.optim.SGD(model.parameters(), **options)
    network = torch.compile(model) if asked.compile else model
    called = "timm" if timm else "torchvision"
    return {
        called: their_step(network, optimiser, asked, is_blind=False),
        f"{called}, blind": their_step(network, optimiser, asked, is_blind=True),
    }


def rate(step: Step, asked: argparse.Namespace, device: torch.device) -> float:
    """Images a second over some steps."""
    _finish(device)
    started_s = time.perf_counter()
    for _ in range(asked.steps):
        step()
    _finish(device)
    return asked.steps * asked.batch_size / (time.perf_counter() - started_s)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops_per_image(name: str) -> float:
    """Floating point operations of forward and backward (multiply and add are two), as torch counts them."""
    network = getattr(torchvision.models, name)(num_classes=CLASSES)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(network(torch.randn(2, 3, 224, 224)).sum())
    return counter.get_total_flops() / 2


def peak(device: torch.device) -> tuple[float, str]:
    """Floating point operations a second that the device can do, and where the figure is from."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, tflops in BF16_PEAK_TFLOPS.items():
            if all(word in name for word in known.split()):
                return tflops * 1e12, f"{name}: {tflops:g} TFLOP/s bfloat16, dense, published"
    side, kind = 2048, torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=kind)
    best_s = float("inf")
    for _ in range(5):
        _finish(device)
        started_s = time.perf_counter()
        matrix @ matrix
        _finish(device)
        best_s = min(best_s, time.perf_counter() - started_s)
    found = 2 * side**3 / best_s
    return found, f"{found / 1e12:.3g} TFLOP/s {kind}, the best matrix product of {side} x {side} measured here"


def compare(
    name: str, timm: ModuleType | None, asked: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Images a second of each contender, in turns, after a warm-up."""
    steps = our_steps(name, asked, device) | their_steps(name, timm, asked, device)
    for step in steps.values():
        for _ in range(asked.warmup):
            step()
    found: dict[str, list[float]] = {contender: [] for contender in steps}
    for _ in range(asked.rounds):
        for contender, step in steps.items():
            found[contender].append(rate(step, asked, device))
    return found


def main() -> None:
    """Time all contenders and print two tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", action="append", choices=NETWORKS, help="one; may be given several times")
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--steps", type=int, default=30, help="timed in each round")
    options.add_argument("--warmup", type=int, default=5)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--compile", action="store_true", help="torch.compile for all")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--peers", type=Path, default=KEPT, help="where the peers are kept")
    asked = options.parse_args()
    device, timm = torch.device(asked.device), timm_module(asked.peers / "training")
    torch.backends.cudnn.benchmark = True  # for all: the shapes never change
    flops_per_s, source = peak(device)
    print(f"torch {torch.__version__}, timm {getattr(timm, '__version__', 'cannot be had')}; peak {source}\n")
    lines, bounds = [], []
    for name in asked.network or NETWORKS:
        flops = flops_per_image(name)
        rates = compare(name, timm, asked, device)
        for contender, values in rates.items():
            used = f"{np.median(values) * flops / flops_per_s:.1%} of the peak ({flops / 1e9:.2f} GFLOP an image)"
            lines.append(Line(name, contender, values, "images/s", used))
        theirs = list(rates)[2]
        ratio = float(np.median(rates["darkroom"]) / np.median(rates[theirs]))
        bounds.append(Bound(f"{name}, images/s, of {theirs}'s", ratio, at_least=1))
    print(markdown(["network", "contender", "median", "spread", ""], [line.cells() for line in lines]), "\n")
    print(markdown(["bound", "found", "wanted", ""], [bound.cells() for bound in bounds]))


if __name__ == "__main__":
    main()
