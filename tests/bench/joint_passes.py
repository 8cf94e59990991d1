"""The joint network's sixteen patches in one flattened pass, against sixteen passes of one patch each.

Photos per second through the whole network of ``crops_joint`` (or another recipe with patches), on random inputs of its
shapes: forward alone, and forward with backward. The sixteen-pass form is the published one: patch i of all photos at a
time, in training mode with the patches rolled by a different amount for each photo beforehand, so that the statistics
of batch normalisation tell no patch's place, and rolled back afterwards. Both forms have the same weights, and in
evaluation mode the same answers, which is checked first. Rounds are interleaved. Needs torch, torchvision and numpy
(pyarrow where ``models`` imports it).

    python tests/bench/joint_passes.py --batch 8 64 --device cuda --precision bfloat16
    python tests/bench/joint_passes.py --batch 8 --device cpu --recipe crops_joint_narrow --rounds 3
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.crops.networks import CropNet, Embedding
from models.recipes import resolve

GRID_CELLS = 16


class SixteenPasses(nn.Module):
    """The same network with a loop over patches where ``CropNet`` flattens them."""

    def __init__(self, net: CropNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, patches: Tensor, thumbnail: Tensor | None = None) -> dict[str, Tensor]:
        """As ``CropNet.forward``."""
        place_BP = torch.arange(GRID_CELLS, device=patches.device).repeat(len(patches), 1)
        if self.training:  # photo b is rolled by b places
            place_BP = (place_BP + torch.arange(len(patches), device=patches.device)[:, None]) % GRID_CELLS
        photo_B1 = torch.arange(len(patches), device=patches.device)[:, None]
        shown = self.net.shown_patches(patches)
        rolled = shown[photo_B1, place_BP] if self.training else shown
        passes = [Embedding.forward(self.net.patches, rolled[:, number]) for number in range(GRID_CELLS)]
        embedding_BPD = torch.stack(passes, dim=1)
        if self.training:
            embedding_BPD = embedding_BPD[photo_B1, place_BP.argsort(1)]
        parts = [embedding_BPD.flatten(1)]
        if self.net.thumbnail is not None:
            parts.append(self.net.thumbnail(self.net.shown_thumbnail(thumbnail)))
        answer_B5 = self.net.head(torch.cat(parts, dim=1))
        location = self.net.patches.locate(embedding_BPD)
        return {"rectangle": answer_B5[:, :4], "crop": answer_B5[:, 4], "location": location}


def random_inputs(recipe: str, batch: int, device: torch.device) -> dict[str, Tensor]:
    """Patches, and a thumbnail where the recipe has one."""
    spec = resolve(recipe).system
    px, half = spec.patches.patch_px, spec.thumbnail
    inputs = {"patches": torch.rand(batch, GRID_CELLS, 3, px, px, device=device)}
    if half:
        inputs["thumbnail"] = torch.rand(batch, 5, half.height, half.width, device=device)
    return inputs


def seconds(step: Callable[[], None], device: torch.device, steps: int) -> float:
    """Wall time of one step, over ``steps`` of them."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def step_of(model: nn.Module, inputs: dict[str, Tensor], precision: str, learns: bool) -> Callable[[], None]:
    """One forward pass of ``model``, with backward if it ``learns``."""
    device = inputs["patches"].device.type

    def step() -> None:
        model.train(learns)
        mixed = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()
        with torch.set_grad_enabled(learns), mixed:
            outputs = model(**inputs)
        if learns:
            model.zero_grad(set_to_none=True)
            sum(value.float().square().mean() for value in outputs.values()).backward()

    return step


@torch.no_grad()
def check_same(one: nn.Module, sixteen: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Exit unless both forms answer alike in evaluation mode."""
    first, second = one.eval()(**inputs), sixteen.eval()(**inputs)
    gap = max(float((first[name] - second[name]).abs().max()) for name in first)
    if gap > 1e-2:
        sys.exit(f"the two forms differ by {gap:.2g}")


def compare(args: argparse.Namespace, batch: int, learns: bool) -> None:
    """Print one line: photos/s of both forms, median and best of the rounds, and their ratio."""
    device = torch.device(args.device)
    inputs = random_inputs(args.recipe, batch, device)
    order = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    net = CropNet(resolve(args.recipe).system).to(device, memory_format=order)
    forms = {"one": net, "sixteen": SixteenPasses(net)}
    check_same(*forms.values(), inputs)
    steps = {name: step_of(model, inputs, args.precision, learns) for name, model in forms.items()}
    for step in steps.values():
        seconds(step, device, max(1, args.steps // 4))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, device, args.steps))
    median = {name: batch / statistics.median(each) for name, each in times.items()}
    best = {name: batch / min(each) for name, each in times.items()}
    print(
        f"{batch:5d}  {'forward+backward' if learns else 'forward':16s}"
        f"  {median['one']:9.1f} ({best['one']:9.1f})  {median['sixteen']:9.1f} ({best['sixteen']:9.1f})"
        f"  {median['one'] / median['sixteen']:5.2f}x",
        flush=True,
    )


def main() -> None:
    """One line for each batch size, forward and with backward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="crops_joint")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="steps a round; 0: 20 on a GPU, 1 on a CPU")
    parser.add_argument("--forward-only", action="store_true")
    args = parser.parse_args()
    args.steps = args.steps or (20 if args.device.startswith("cuda") else 1)
    device = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"{args.recipe} on {device}, {args.precision}, torch {torch.__version__}; photos/s: median (best)")
    print("batch  pass              one flattened pass        sixteen passes       ratio")
    for batch in args.batch:
        for learns in (False,) if args.forward_only else (False, True):
            compare(args, batch, learns)


if __name__ == "__main__":
    main()
