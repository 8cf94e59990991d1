"""The synthetic camera: deterministic, readable by any decoder, and position only where the lens leaves it."""

import io
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tasks.sources.standin.camera import CameraFacts, Lens, _scatter, encode_jpeg, render, vignetting_gain

BARE = Lens(vignetting=0, chromatic=0, noise=0)


def _brightness(lens: Lens) -> npt.NDArray[np.float64]:
    """Mean luminance over 60 scenes in the centre and in the mean of the four corners."""
    stack = np.stack([render(seed, 300, 200, lens).mean(axis=2) for seed in range(60)]).mean(axis=0)
    corners = np.mean([stack[:40, :60], stack[:40, -60:], stack[-40:, :60], stack[-40:, -60:]])
    return np.array([stack[80:120, 120:180].mean(), corners])


def test_same_seed_gives_same_bytes() -> None:
    """A photo is a function of its seed, size and lens."""
    first, again, other = (encode_jpeg(render(seed, 240, 160, Lens()), CameraFacts()) for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("size", [(240, 160), (161, 243), (1, 1), (37, 500)])
def test_any_size_is_rendered(size: tuple[int, int]) -> None:
    """Width and height are those that were asked for, in the order (height, width, 3)."""
    image = render(1, *size, Lens())
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8


def test_scenes_alone_have_no_centre() -> None:
    """Without a lens, corners are as bright as the centre on average; with one they are much darker."""
    centre, corners = _brightness(BARE)
    assert corners / centre == pytest.approx(1, abs=0.12)
    centre, corners = _brightness(Lens(vignetting=1, chromatic=0, noise=0))
    assert corners / centre < 0.6


def test_leaves_are_spread_evenly() -> None:
    """Each ninth of the window holds a ninth of the leaves' centres, and borders are covered from outside."""
    fields = [_scatter(np.random.default_rng(seed), 600, 400, 8.0) for seed in range(20)]
    radius, x, y = (np.concatenate(column) for column in zip(*fields, strict=True))
    counts, _, _ = np.histogram2d(x, y, bins=3, range=((0, 600), (0, 400)))
    assert counts / counts.mean() == pytest.approx(np.ones((3, 3)), abs=0.1)
    assert (x + radius < 8).any()
    assert (x - radius > 592).any()


def _fine_structure(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Logarithms of the power and of the kurtosis of the finest differences of a photo, reduced to a thumbnail."""
    thumbnail = np.asarray(Image.fromarray(photo).resize((72, 48), Image.Resampling.BOX), np.float64).mean(axis=2)
    differences = np.concatenate([np.diff(thumbnail, axis=axis).ravel() for axis in (0, 1)])
    power = (differences**2).mean()
    return np.log([power, (differences**4).mean() / power**2])


def test_scenes_alone_have_no_scale() -> None:
    """Without a lens, a quarter of a photo looks like the whole: neither finer, nor coarser, nor sharper."""
    changes = []
    for seed in range(16):
        photo = render(seed, 1620, 1080, BARE)
        quarters = [photo[y : y + 540, x : x + 810] for y in (0, 540) for x in (0, 810)]
        changes.append(np.mean([_fine_structure(quarter) for quarter in quarters], axis=0) - _fine_structure(photo))
    assert np.mean(changes, axis=0) == pytest.approx(np.zeros(2), abs=0.09)


def test_colour_fringes_grow_from_the_centre() -> None:
    """Lateral chromatic aberration leaves green and the centre alone and moves red and blue towards the borders."""
    plain = render(3, 900, 600, BARE).astype(int)
    fringed = render(3, 900, 600, Lens(vignetting=0, chromatic=1, noise=0)).astype(int)
    change = abs(fringed - plain)
    assert change[..., 1].max() == 0
    for channel in (0, 2):
        middle, border = change[280:320, 420:480, channel].mean(), change[:, :60, channel].mean()
        assert border > 3 * middle


def test_noise_has_no_position() -> None:
    """Noise of the same deviation in the centre and in a corner."""
    noise = render(8, 600, 400, Lens(0, 0, 1)).astype(int) - render(8, 600, 400, BARE).astype(int)
    inside = abs(noise) < 250
    centre, corner = noise[150:250, 250:350][inside[150:250, 250:350]], noise[:100, :100][inside[:100, :100]]
    assert centre.std() > 0.5
    assert centre.std() == pytest.approx(corner.std(), rel=0.35)


def test_vignetting_follows_its_polynomial() -> None:
    """1 in the centre, 1 / 11.8438 of the light at the corner of the photo, everything at strength 0."""
    gain = vignetting_gain(1201, 801, 1.0)
    assert gain[400, 600] == pytest.approx(1, abs=1e-4)
    corner = gain[round(400 - 400 / 1.024), round(600 - 600 / 1.024)]
    assert corner == pytest.approx(1 / 11.8438, rel=0.02)
    assert (vignetting_gain(30, 20, 0.0) == 1).all()


def test_exif_says_what_the_camera_was() -> None:
    """Make, model, date, software and orientation are where any reader looks for them."""
    taken_at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    data = encode_jpeg(render(1, 64, 48, Lens()), CameraFacts("Canon", "EOS 6D", taken_at, 6, "Lightroom"))
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        image.load()
    assert (exif[0x010F], exif[0x0110], exif[0x0112], exif[0x0131]) == ("Canon", "EOS 6D", 6, "Lightroom")
    assert exif.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
