"""Thumbnails and patches: cut where the plan says, from the frame that it says, with labels that say so."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from models import resampling
from models.crops import patches as patch_rendering
from models.crops.law import patch_labels
from models.crops.patches import first_pixels, render_patches
from models.crops.samples import SamplePlan, plan_as_given, plan_fixed, plan_samples
from models.crops.spec import KERNELS, CropSpec, PatchSpec, ScaleLaw, ThumbnailSpec, TrunkSpec
from models.crops.thumbnails import first_filter, render_thumbnails
from models.randomness import photo_keys
from models.resampling import PLAIN, crop_and_resize, intermediate_height

TRUNK = TrunkSpec((1,), (8,), "3x3")
SPEC = CropSpec(
    ThumbnailSpec(TRUNK, height=48, width=72, scale=ScaleLaw(72, 96)),
    PatchSpec(TRUNK, patch_px=48, scale=ScaleLaw(288, 384)),
)
HEIGHT, WIDTH = 512, 768
OFFICIAL = ScaleLaw(min_px=300, max_px=900, protocol="official", max_noise_std=0.0)
COLOURS = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}
BUSY = replace(SPEC, kernels=("triangle", "gaussian"), flips=("horizontal", "vertical"), **COLOURS)
QUIET = replace(SPEC.patches.scale, max_noise_std=0.0)


def frames(count: int, height: int = 128, width: int = 192) -> torch.Tensor:
    """Frames of noise, uint8, stored as a pack stores them."""
    noise = np.random.default_rng(5).integers(0, 256, (count, height, width, 3), np.uint8)
    return torch.from_numpy(noise).permute(0, 3, 1, 2)


def thumbnails(image: torch.Tensor, plan: SamplePlan, spec: CropSpec = SPEC) -> torch.Tensor:
    """Thumbnails of the narrow recipe."""
    return render_thumbnails(image, plan, spec.thumbnail, spec.crop_law, spec.kernels)


def patches(image: torch.Tensor, plan: SamplePlan, spec: CropSpec = SPEC) -> torch.Tensor:
    """Patches of the narrow recipe."""
    return render_patches(image, plan, spec.patches, spec.crop_law, spec.kernels)


@pytest.mark.parametrize("spec", [SPEC, BUSY], ids=["plain", "busy"])
def test_thumbnails_do_not_depend_on_their_batch(spec):
    """Alone, in another order or in other company, a photo gets the same pixels and the same target."""
    keys, image = photo_keys(f"flickr/{n}" for n in range(6)), frames(6)
    plan = plan_samples(keys, seed=1, epoch=4, spec=spec)
    together, order = thumbnails(image, plan, spec), np.array([4, 1])
    alone = plan_samples(keys[order], seed=1, epoch=4, spec=spec)
    assert np.array_equal(alone.rectangle_N4, plan.rectangle_N4[order])
    assert torch.allclose(thumbnails(image[order], alone, spec), together[order], atol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, BUSY], ids=["plain", "busy"])
def test_patches_do_not_depend_on_their_batch(spec):
    """Neither do the sixteen patches."""
    keys, image = photo_keys(f"flickr/{n}" for n in range(4)), frames(4, HEIGHT, WIDTH)
    plan, order = plan_samples(keys, seed=1, epoch=4, spec=spec), np.array([3, 0])
    assert torch.allclose(patches(image[order], plan.take(order), spec), patches(image, plan, spec)[order], atol=1e-5)


def test_kernels_and_colours_leave_every_other_draw_alone():
    """Without them crops, widths, noise, jitter and flips are what they were before there were kernels and colours."""
    keys = photo_keys(["flickr/0", "flickr/1"])
    plan, busy = (plan_samples(keys, 1, 4, replace(spec, flips=BUSY.flips)) for spec in (SPEC, BUSY))
    drawn = {"kernel_N", "factor_N3"}
    for name in set(SamplePlan.__dataclass_fields__) - drawn:
        assert np.array_equal(getattr(plan, name), getattr(busy, name))
    assert plan.width_px_N2.tolist() == [[81, 328], [84, 306]]
    assert plan.noise_key_N2.tolist() == [[3005057919, 1231001066], [4220469912, 3445080654]]
    assert plan.jitter_px_NP2[:, -1].tolist() == [[0, -4], [-6, -3]]
    assert plan.kernel_N.tolist() == [0, 0]
    assert (plan.factor_N3 == 1).all()
    named = replace(SPEC, kernels=("triangle",))
    assert torch.equal(thumbnails(frames(2), plan, named), thumbnails(frames(2), plan))


def test_kernels_and_colours_say_nothing_about_the_label():
    """The same photo gets the same ones whole and cropped; all are drawn, in full; an evaluation has none of them."""
    keys = photo_keys(str(n) for n in range(4_000))
    whole, crop = (
        plan_samples(keys, 0, 0, replace(BUSY, crop_law=replace(SPEC.crop_law, crop_probability=p))) for p in (0.0, 1.0)
    )
    assert np.array_equal(whole.kernel_N, crop.kernel_N)
    assert np.array_equal(whole.factor_N3, crop.factor_N3)
    assert np.bincount(crop.kernel_N) == pytest.approx(2_000, rel=0.05)
    assert crop.factor_N3.min(0) == pytest.approx(0.7, abs=0.01)
    assert crop.factor_N3.max(0) == pytest.approx(1.3, abs=0.01)
    fixed = plan_fixed(keys, 1, BUSY)
    assert not fixed.kernel_N.any()
    assert (fixed.factor_N3 == 1).all()


def test_both_halves_see_the_same_colours():
    """Brightness and contrast are one line from grey to grey in both halves of a crop, about its photo's mean."""
    ramp = torch.linspace(0.3, 1, WIDTH) * torch.linspace(1, 0.5, HEIGHT)[:, None]
    large = (60 + 20 * torch.arange(3).view(1, 3, 1, 1) + 80 * ramp).to(torch.uint8)
    small = large[:, :, ::4, ::4]
    plan = replace(plan_as_given(1, SPEC), rectangle_N4=np.array([[0.5, 1.0, 0.0, 0.5]]))
    changed = replace(plan, factor_N3=np.array([[1.2, 0.6, 0.5]]))
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    lines = []
    for render, image in ((render_thumbnails, small), (partial(render_patches, small_BCHW=small), large)):
        half = SPEC.thumbnail if image is small else SPEC.patches
        pictures = (render(image, each, spec=half, law=SPEC.crop_law) for each in (plan, changed))
        before, after = ((picture[..., :3, :, :] * luma).sum(-3).flatten().numpy() for picture in pictures)
        lines.append(np.polyfit(before, after, 1))
    assert lines[0] == pytest.approx(lines[1], abs=1e-3)
    mean = 1.2 * float((small[0] / 255 * luma).sum(0).mean())
    assert lines[0] == pytest.approx([1.2 * 0.6, mean * (1 - 0.6)], abs=3e-3)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "area"])
def test_a_kernel_is_what_torch_calls_so(name):
    """Three of the official kernels, at a third of the size and at the size itself."""
    image = frames(2).float()
    whole = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).expand(2, 4)
    mode = {"nearest": "nearest-exact"}.get(name, name)
    for size in ((40, 60), (128, 192)):
        given = image[:, :, : 3 * 40, : 3 * 60] if size == (40, 60) else image
        expected = functional.interpolate(given, size, mode=mode)
        assert torch.allclose(crop_and_resize(given, whole, size, by=PLAIN[name]), expected, atol=2e-3)


@pytest.mark.parametrize("scale", [QUIET, OFFICIAL], ids=["matched", "official"])
def test_each_sample_has_its_own_kernel(scale):
    """A sample looks as if all had its kernel, and no two kernels look alike."""
    spec = replace(SPEC, thumbnail=replace(SPEC.thumbnail, scale=replace(scale, min_px=80, max_px=90)), flips=())
    spec = replace(spec, patches=replace(SPEC.patches, scale=scale), kernels=KERNELS[scale.protocol])
    count = len(spec.kernels)
    small, large = (image[:1].repeat(count, 1, 1, 1) for image in (frames(1), frames(1, HEIGHT, WIDTH)))
    plan = plan_as_given(count, spec)
    mixed = replace(plan, kernel_N=np.arange(count))
    for render, image in ((thumbnails, small), (patches, large)):
        found = render(image, mixed, spec)
        for number, kernel in enumerate(spec.kernels):
            alone = render(image, plan, replace(spec, kernels=(kernel,)))
            assert torch.allclose(found[number], alone[number], atol=1e-4)
            assert all((found[number] - found[other]).abs().max() > 0.01 for other in range(number))


def test_coordinates_follow_the_colours():
    """The fourth channel is y, the fifth x, both from 0 to 1."""
    image = thumbnails(frames(1), plan_as_given(1, SPEC))
    assert image.shape == (1, 5, 48, 72)
    assert torch.equal(image[0, 3, :, 0], torch.linspace(0, 1, 48))
    assert torch.equal(image[0, 4, 0], torch.linspace(0, 1, 72))


def test_fixed_samples_pair_each_photo():
    """Sample 0 of a photo is whole, the others are crops that differ; none is flipped."""
    keys = photo_keys(["a", "b"])
    plans = [plan_fixed(keys, number, replace(SPEC, flips=("horizontal", "vertical"))) for number in range(3)]
    assert [plan.is_crop_N.tolist() for plan in plans] == [[False, False], [True, True], [True, True]]
    assert not np.any(plans[1].rectangle_N4[:, :2] == plans[2].rectangle_N4[:, :2].clip(1e-9))
    assert not any(plan.is_mirrored_N2.any() for plan in plans)


def test_plans_draw_what_the_spec_allows():
    """Widths, noise, jitter and flips of both halves fill their ranges; the halves alone draw the same crops."""
    spec = replace(SPEC, flips=("vertical",))
    plan = plan_samples(photo_keys(str(n) for n in range(4_000)), 0, 0, spec)
    assert plan.width_px_N2.min(0).tolist() == [SPEC.thumbnail.scale.min_px, SPEC.patches.scale.min_px]
    assert plan.width_px_N2.max(0).tolist() == [SPEC.thumbnail.scale.max_px, SPEC.patches.scale.max_px]
    assert np.unique(plan.jitter_px_NP2).tolist() == list(range(-8, 8))
    assert plan.is_mirrored_N2.mean(0) == pytest.approx([0, 0.5], abs=0.05)
    assert np.abs(np.corrcoef(plan.width_px_N2.T)[0, 1]) < 0.05
    half = plan_samples(photo_keys(str(n) for n in range(4_000)), 0, 0, replace(spec, patches=None))
    assert np.array_equal(half.rectangle_N4, plan.rectangle_N4)
    assert np.array_equal(half.noise_key_N2, plan.noise_key_N2)


@pytest.mark.parametrize("scale", [QUIET, OFFICIAL], ids=["matched", "official"])
@pytest.mark.parametrize("flips", [(), ("horizontal", "vertical")], ids=["as it is", "flipped"])
@pytest.mark.parametrize("patch_px", [48, 29], ids=["even", "odd"])
def test_patches_are_windows_of_the_whole_picture(scale, flips, patch_px):
    """Each patch equals the same window of the whole sample, resampled to its intermediate size."""
    spec = replace(SPEC, patches=replace(SPEC.patches, scale=scale, patch_px=patch_px), flips=flips)
    image, px = frames(3, HEIGHT, WIDTH), spec.patches.patch_px
    plan = plan_samples(photo_keys(["a", "b", "c"]), 0, 1, spec)
    assert plan.is_crop_N.any()
    assert not plan.is_crop_N.all()
    assert not flips or plan.is_mirrored_N2.any()
    patches = render_patches(image, plan, spec.patches, spec.crop_law)
    for row, (width, jitter) in enumerate(zip(plan.width_px_N2[:, 1], plan.jitter_px_NP2, strict=True)):
        height = int(intermediate_height(torch.tensor(float(width)), HEIGHT / WIDTH))
        rectangle = torch.from_numpy(plan.rectangle_N4[row : row + 1]).float()
        mirrored = torch.from_numpy(plan.is_mirrored_N2[row : row + 1])
        by = first_filter(scale, WIDTH, spec.crop_law)
        picture = crop_and_resize(
            image[row : row + 1].float() / 255, rectangle, (height, int(width)), None, mirrored, by
        )
        left, top = (
            first_pixels(axis, torch.tensor([float(count)]), torch.from_numpy(jitter[None, :, axis]), px)[0].long()
            for axis, count in ((0, width), (1, height))
        )
        for number in range(16):
            window = picture[0, :, top[number] : top[number] + px, left[number] : left[number] + px]
            assert torch.allclose(patches[row, number], window, atol=2e-4)


def test_samples_are_the_same_where_all_windows_come_at_once(monkeypatch):
    """As on a GPU: bytes become thumbnails and patches with noise, equal to those made a few windows at a time."""
    image, plan = frames(3, HEIGHT, WIDTH), plan_samples(photo_keys(["a", "b", "c"]), 0, 1, SPEC)
    assert image.dtype == torch.uint8
    found = [thumbnails(image, plan), patches(image, plan)]
    at_once = partial(resampling.resample, is_at_once=True)
    for module in (resampling, patch_rendering):
        monkeypatch.setattr(module, "resample", at_once)
    for before, after in zip(found, [thumbnails(image, plan), patches(image, plan)], strict=True):
        assert torch.allclose(before, after, atol=1e-5)


def test_patches_lie_around_their_cells():
    """A patch begins half its size before its cell's centre, moved by the jitter, and never leaves the picture."""
    count, still = torch.tensor([320.0]), torch.zeros(1, 16)
    assert first_pixels(0, count, still, 48)[0, :4].tolist() == [40 - 24, 120 - 24, 200 - 24, 280 - 24]
    assert first_pixels(1, count, still, 48)[0, ::4].tolist() == [40 - 24, 120 - 24, 200 - 24, 280 - 24]
    assert first_pixels(0, count, still - 8, 48)[0, 1] == 120 - 24 - 8
    assert first_pixels(0, torch.tensor([192.0]), still - 8, 48)[0, 0] == 0
    assert first_pixels(0, torch.tensor([192.0]), still + 7, 48)[0, 3] == 192 - 48


def test_the_official_protocol_is_one_bilinear_resize():
    """At the official scale a patch is a window of torch's plain bilinear resize of the crop, here enlarged."""
    spec = replace(SPEC.patches, scale=OFFICIAL)
    plan = replace(
        plan_as_given(1, replace(SPEC, patches=spec)),
        rectangle_N4=np.array([[0.5, 1.0, 0.25, 0.75]]), width_px_N2=np.array([[72, 600]]),
    )  # fmt: skip
    image = frames(1, HEIGHT, WIDTH)
    whole = functional.interpolate(image[:, :, 128:384, 384:].float() / 255, (400, 600), mode="bilinear")
    patch = render_patches(image, plan, spec, SPEC.crop_law)[0, 6]
    assert torch.allclose(patch, whole[0, :, 150 - 24 : 150 + 24, 375 - 24 : 375 + 24], atol=2e-4)


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_labels_are_the_cells_that_patches_show(mirrored):
    """On a frame whose 16 cells have 16 colours, each patch of a crop shows the colour of the cell of its label.

    A flip mirrors the frame before it is cropped: labels are cells of the mirrored frame.
    """
    cells = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4) * 15 + 10
    image = cells.repeat_interleave(HEIGHT // 4, 2).repeat_interleave(WIDTH // 4, 3).expand(1, 3, HEIGHT, WIDTH)
    plan = replace(
        plan_as_given(1, SPEC), rectangle_N4=np.array([[0.3, 1.0, 0.0, 0.7]]), is_mirrored_N2=np.array([mirrored])
    )
    patches = render_patches(image, plan, SPEC.patches, SPEC.crop_law)[0]
    shown = ((patches[:, 0, 24, 24] * 255 - 10) / 15).round().long()
    flipped = cells.flip([axis for axis, is_so in ((3, mirrored[0]), (2, mirrored[1])) if is_so])
    expected = (flipped.flatten().long() - 10)[torch.from_numpy(patch_labels(plan.rectangle_N4)[0])] // 15
    assert shown.tolist() == expected.tolist()


@pytest.fixture(scope="module")
def scale_free_frames():
    """Frames [48, 3, 128, 192] of a 1/f random field, averaged down from twice the size as a pack's frames are."""
    rng, size = np.random.default_rng(2), 384
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((48, size, size))) / frequency, s=(size, size))
    small = fields.reshape(48, 192, 2, 192, 2).mean((2, 4))[:, :128]
    levels = (128 + 30 * small / small.std()).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(np.repeat(levels[:, None], 3, axis=1))


def fine_detail(image_BHW: torch.Tensor) -> float:
    """The mean logarithm of the pictures' power in the upper third of their spectra, tapered: borders are no detail."""
    height, width = image_BHW.shape[1:]
    taper = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.rfft2((image_BHW - image_BHW.mean((1, 2), keepdim=True)) * taper).abs().square()
    vertical, horizontal = torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width)[None]
    return float(power[:, torch.hypot(vertical, horizontal) > 0.35].mean(1).log().mean())


def detail_of_crops(spec: CropSpec, render) -> float:
    """By how much crops of the same photos have more fine detail than the whole."""
    keys = photo_keys(str(n) for n in range(48))
    whole, *crops = (fine_detail(render(plan_fixed(keys, number, spec))) for number in range(5))
    return float(np.mean(crops)) - whole


@pytest.mark.parametrize("kernel", KERNELS["matched"])
def test_thumbnails_do_not_tell_crop_from_whole(scale_free_frames, kernel):
    """On a scale-free field the finest detail of a thumbnail is as strong in a crop as in the whole, within 5 %."""
    half = replace(SPEC.thumbnail, height=24, width=36, scale=ScaleLaw(48, 48, max_noise_std=0.0))
    spec = replace(SPEC, thumbnail=half)
    render = partial(render_thumbnails, scale_free_frames, spec=half, law=spec.crop_law, kernels=(kernel,))
    assert detail_of_crops(spec, lambda plan: render(plan)[:, 0]) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("scale", "least", "most"),
    [(ScaleLaw(48, 48, max_noise_std=0.0), -0.05, 0.05), (replace(OFFICIAL, min_px=150, max_px=250), -3.0, -0.7)],
    ids=["matched", "official"],
)
def test_patches_tell_crop_from_whole_only_under_the_official_protocol(scale_free_frames, scale, least, most):
    """Neither do patches, under the matched protocol; the official one leaves crops less than half of the power."""
    half = replace(SPEC.patches, patch_px=28, scale=scale, jitter_px=1)
    spec = replace(SPEC, patches=half)
    render = partial(render_patches, scale_free_frames, spec=half, law=spec.crop_law)
    assert least < detail_of_crops(spec, lambda plan: render(plan)[:, :, 0].flatten(0, 1)) < most
