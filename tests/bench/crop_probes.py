"""Probes that see no picture: whether the width, the mean colour or the power spectrum of a sample tells a crop.

What a probe can tell, a network can tell without any trace of a lens. Under the scale-matched protocol both have to be
at chance where the camera has no lens; under the official protocol (one bilinear resize of either class, crops
enlarged) what is left is the leak. The mean colour of crops scatters more than that of whole photos, under any
protocol: it is reported, and the networks are not shown it. A probe is a logistic regression or a small network,
trained on draws of train, stopped by val, judged on the fixed samples of test with intervals over photos. That probes
see anything at all is shown by the width that a sample has before it is brought to scale, which tells everything.
Shapes: N samples, F features, B batch, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.crops.samples import plan_samples
from models.crops.spec import CropSpec, ScaleLaw
from models.crops.system import CropSystem
from models.loader import FrameStore, open_pack, room_on, settle
from models.metrics import Estimate, PhotoBootstrap, best_threshold
from models.resampling import intermediate_height
from models.specs import Recipe

RINGS = 24  # of spatial frequency, from 0 to the corner of the band
BATCH = 64
EPOCHS = 400  # at most, of all features at once
PATIENCE = 40
HIDDEN = 32
REPLICATES, BOOTSTRAP_SEED = 2000, 7
AS_CROPPED = "width as cropped"
MEAN_COLOUR = "mean colour of the thumbnail"


@dataclass(frozen=True)
class Probed:
    """What one probe measured on test. ``must_be``: "chance" or "seen", or the protocol or the probe is at fault."""

    strength: float
    protocol: str
    what: str
    kind: str
    accuracy: Estimate
    auroc: Estimate
    must_be: str


@dataclass(frozen=True)
class Features:
    """Features of the samples of one split, by what they are made of, and the truth about each sample."""

    by_name: dict[str, Tensor]
    is_crop: Tensor
    photo: np.ndarray
    weight: np.ndarray


def official(recipe: Recipe) -> Recipe:
    """The recipe under the published protocol: any width from half a frame to a whole one, by one bilinear resize."""
    system, pack = recipe.system, recipe.pack
    assert isinstance(system, CropSpec)
    halves: dict[str, Any] = {}
    for name, half, width in (
        ("thumbnail", system.thumbnail, pack.frame_width), ("patches", system.patches, pack.detail_width),
    ):  # fmt: skip
        if half and width:
            scale = ScaleLaw(max(width // 2, half.scale.min_px), width, "official", half.scale.max_noise_std)
            halves[name] = replace(half, scale=scale)
    return replace(recipe, name=f"{recipe.name}_official", system=replace(system, **halves))


def spectrum(image_MCHW: Tensor) -> Tensor:
    """Logarithm of the mean power [M, RINGS] in rings of spatial frequency, of the luma under a Hann window."""
    luma_MHW = image_MCHW[:, :3].mean(1)
    height, width = luma_MHW.shape[1:]
    window_HW = torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))
    window_HW = window_HW.to(luma_MHW.device)
    centred_MHW = luma_MHW - luma_MHW.mean((1, 2), keepdim=True)
    power_MHW = torch.fft.rfft2(centred_MHW * window_HW).abs().square()
    radius_HW = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    ring_HW = (radius_HW / 0.5**0.5 * RINGS).long().clamp(max=RINGS - 1).to(luma_MHW.device)
    count_R = torch.bincount(ring_HW.ravel(), minlength=RINGS).clamp(min=1)
    sum_MR = torch.zeros(len(luma_MHW), RINGS, device=luma_MHW.device)
    sum_MR.index_add_(1, ring_HW.ravel(), power_MHW.flatten(1))
    return (sum_MR / count_R + 1e-9).log()


def inputs_features(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of network inputs [B, F]: spectra, the thumbnail's and the mean over the sixteen patches, and the mean colour."""
    found = {}
    if "thumbnail" in inputs:
        colour_B3 = inputs["thumbnail"][:, :3].mean((2, 3)) - 0.5
        found[MEAN_COLOUR] = torch.cat([colour_B3, colour_B3.square()], 1)
        found["spectrum of the thumbnail"] = spectrum(inputs["thumbnail"])
    if "patches" in inputs:
        patches = inputs["patches"]
        found["spectrum of the patches"] = spectrum(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).mean(1)
    return found


def width_features(plan: Any, height_of_width: float, frame_width: int) -> dict[str, Tensor]:
    """Width in pixels and aspect [N, 2 a half] after the reduction, and the width as cropped, before it."""
    width_N2 = torch.as_tensor(plan.width_px_N2, dtype=torch.float64)
    aspect_N2 = width_N2 / intermediate_height(width_N2, height_of_width)
    cropped_N = torch.as_tensor(plan.rectangle_N4[:, 1] - plan.rectangle_N4[:, 0]) * frame_width
    return {
        "width and aspect as resampled": torch.cat([width_N2, aspect_N2], 1).float(),
        AS_CROPPED: cropped_N[:, None].float(),
    }


@torch.no_grad()
def train_features(system: CropSystem, store: FrameStore, draws: int) -> Features:
    """Features of ``draws`` training samples of each photo."""
    parts = []
    pack = system.recipe.pack
    for epoch in range(draws):
        for rows_B in _batches(len(store)):
            photos = store.batch(rows_B)
            batch = system.draw(photos, 0, epoch)
            plan = plan_samples(photos.keys_B, 0, epoch, system.spec)
            widths = width_features(plan, pack.frame_height / pack.frame_width, pack.frame_width)
            parts.append((inputs_features(batch.inputs) | widths, batch.targets["crop"], rows_B))
    return _joined(parts, np.ones(draws * len(store)))


@torch.no_grad()
def fixed_features(system: CropSystem, store: FrameStore) -> Features:
    """Features of the fixed samples of a split."""
    samples, pack, parts = system.samples(store.split), system.recipe.pack, []
    for rows_B in _batches(len(samples)):
        batch = system.draw_fixed(store.batch(samples.photo_N[rows_B]), samples, rows_B)
        widths = width_features(samples.plan.take(rows_B), pack.frame_height / pack.frame_width, pack.frame_width)
        parts.append((inputs_features(batch.inputs) | widths, batch.targets["crop"], samples.photo_N[rows_B]))
    return _joined(parts, samples.weight_N)


def _batches(count: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _joined(parts: list[Any], weight_N: np.ndarray) -> Features:
    features, truths, photos = zip(*parts, strict=True)
    by_name = {name: torch.cat([each[name].cpu() for each in features]) for name in features[0]}
    return Features(by_name, torch.cat([each.cpu() for each in truths]) > 0.5, np.concatenate(photos), weight_N)


def fit_probe(train: Features, val: Features, name: str, hidden: tuple[int, ...], seed: int) -> nn.Module:
    """A probe of the features ``name``, of the epoch that did best on val."""
    mean_F, std_F = train.by_name[name].mean(0), train.by_name[name].std(0).clamp(min=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (len(mean_F), *hidden, 1)
        layers: list[nn.Module] = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    probe = nn.Sequential(Standardised(mean_F, std_F), *layers)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=0.02, weight_decay=0.01)
    weight_N = torch.from_numpy(val.weight).float()
    best, kept, waited = float("inf"), probe.state_dict(), 0
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        _loss(probe, train, name, torch.ones(len(train.is_crop))).backward()
        optimiser.step()
        with torch.no_grad():
            loss = float(_loss(probe, val, name, weight_N))
        if loss < best:
            best, kept, waited = loss, {key: value.clone() for key, value in probe.state_dict().items()}, 0
        elif (waited := waited + 1) > PATIENCE:
            break
    probe.load_state_dict(kept)
    return probe


class Standardised(nn.Module):
    """Features less their mean, over their standard deviation."""

    def __init__(self, mean_F: Tensor, std_F: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_F", mean_F)
        self.register_buffer("std_F", std_F)

    def forward(self, features_NF: Tensor) -> Tensor:
        return (features_NF - self.mean_F) / self.std_F


def _loss(probe: nn.Module, features: Features, name: str, weight_N: Tensor) -> Tensor:
    logit_N = probe(features.by_name[name])[:, 0]
    loss_N = functional.binary_cross_entropy_with_logits(logit_N, features.is_crop.float(), reduction="none")
    return (loss_N * weight_N).sum() / weight_N.sum()


@torch.no_grad()
def judge_probe(probe: nn.Module, val: Features, test: Features, name: str) -> tuple[Estimate, Estimate]:
    """Accuracy (threshold of val) and area under the ROC curve on test."""
    val_N, test_N = (probe(each.by_name[name])[:, 0].double().numpy() for each in (val, test))
    threshold = best_threshold(val_N, val.is_crop.numpy(), val.weight)
    is_crop_N = test.is_crop.numpy()
    bootstrap = PhotoBootstrap(test.photo, int(test.photo.max()) + 1, REPLICATES, BOOTSTRAP_SEED)
    right_N = ((test_N >= threshold) == is_crop_N).astype(float)
    return bootstrap.mean(right_N, test.weight), bootstrap.auroc(test_N, is_crop_N, test.weight)


def probe_pack(pack_dir: Path, recipe: Recipe, strength: float, draws: int, device: torch.device) -> Iterator[Probed]:
    """All probes of one protocol on one pack; ``recipe`` has both halves."""
    system = CropSystem(recipe)
    assert system.spec.thumbnail is not None
    protocol = system.spec.thumbnail.scale.protocol
    pack = open_pack(pack_dir, recipe.pack, ("train", "val", "test"))
    needs_detail = recipe.pack.detail_height is not None
    stores = {name: FrameStore(split, device, needs_detail) for name, split in pack.splits.items()}
    settle(stores.values(), room_on(device))
    train = train_features(system, stores["train"], draws)
    val, test = fixed_features(system, stores["val"]), fixed_features(system, stores["test"])
    for name in train.by_name:
        for kind, hidden in (("logistic regression", ()), ("small network", (HIDDEN,))):
            found = judge_probe(fit_probe(train, val, name, hidden, seed=0), val, test, name)
            is_matched = strength == 0 and protocol == "matched"
            must_be = "seen" if name == AS_CROPPED else "chance" if is_matched and name != MEAN_COLOUR else ""
            yield Probed(strength, protocol, name, kind, *found, must_be)
