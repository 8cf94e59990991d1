"""A synthetic camera: a scene that tells nothing, photographed through a lens that tells where its centre is.

Scenes are dead leaves with radii of density r^-3 under a random global zoom, plus 1/f texture and light: stationary and
scale-free, without horizon, gravity or composition. So only the lens (vignetting, lateral chromatic aberration) tells
which part of the frame a crop shows, and at strength 0 nothing does.

Source: dead leaves: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 41 (2001); vignetting polynomial
and colour scaling: the perturbations of Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Sample = TypeVar("Sample", np.float32, np.uint8)

TILE_PX = 512
NOISE_SIGMA = 32.0  # of the stored tile, in grey levels; photos scale it down
MARGIN = 0.012  # scene beyond each border: a channel that is scaled inwards still finds pixels there
CHROMATIC_MAX = 0.0035  # a red and a blue frame differ by up to 0.7 % in size: 3 px each way in a 1620 px corner
COVERAGE = 0.7  # leaves over each point of the scene, per factor e of their radius
LEAF_MAX = 8.0  # heights of the scene
LEAF_MIN_PX = 6.0  # of the scene, before the zoom
CRUMB_MIN_PX = 0.7
SHRINK = (1.8, 2.6)  # the scene is drawn smaller than the photo by this factor
SHARPENING = (0.05, 0.3)  # makes up for what enlarging takes away, so that crops look as crisp as whole photos
CRUMB_COVERAGE = 0.12  # measured: thumbnails of crops then have the spectrum of whole photos


@dataclass(frozen=True)
class Lens:
    """Strength of every cue, 0 (absent) to 1 (full). ``noise`` has no position: it only hides the others."""

    vignetting: float = 1.0
    chromatic: float = 1.0
    noise: float = 1.0

    @classmethod
    def of_strength(cls, strength: float) -> "Lens":
        """Both positional cues at ``strength``, noise as usual."""
        return cls(vignetting=strength, chromatic=strength)


@dataclass(frozen=True)
class CameraFacts:
    """What the EXIF block says; ``taken_at`` None leaves the date out."""

    make: str = ""
    model: str = ""
    taken_at: datetime | None = None
    orientation: int = 1
    software: str = ""


def render(seed: int, width: int, height: int, lens: Lens) -> Pixels:
    """The photo of scene ``seed``, (height, width, 3) RGB. Same arguments, same pixels."""
    rng = np.random.default_rng(seed)
    scene_width, scene_height = _scene_size(rng, width, height)
    zoom = float(np.exp(rng.uniform(math.log(0.6), math.log(2.6))))
    leaves = _draw_leaves(rng, scene_width, scene_height, zoom)
    gain = _texture(rng, leaves[..., 3]) * _light(rng, scene_width, scene_height)
    gain *= vignetting_gain(scene_width, scene_height, float(lens.vignetting * rng.uniform(0.6, 1.0)))
    scene = np.clip(leaves[..., :3] * gain[..., None], 0, 255).astype(np.uint8)
    return _add_noise(rng, _refract(rng, scene, width, height, lens.chromatic), lens.noise)


def _scene_size(rng: np.random.Generator, width: int, height: int) -> tuple[int, int]:
    """Scenes are drawn smaller than the photo: fast, and sharpness says less about the scale of a crop."""
    shrink = rng.uniform(*SHRINK)
    return math.ceil(width * (1 + 2 * MARGIN) / shrink), math.ceil(height * (1 + 2 * MARGIN) / shrink)


def _draw_leaves(rng: np.random.Generator, width: int, height: int, zoom: float) -> Pixels:
    """Opaque discs and polygons, the last one on top; (height, width, 4) RGBA where A holds how rough the leaf is."""
    palette = _palette(rng)
    image = Image.new("RGBA", (width, height), tuple(palette[0].tolist()))
    pen = ImageDraw.Draw(image)
    radius, x, y = _scatter(rng, width, height, zoom)
    colour = _leaf_colours(rng, palette, len(radius)).tolist()
    corners = rng.integers(2, 7, len(radius)).tolist()  # 2 stands for a disc
    turn = rng.uniform(0, 2 * math.pi, len(radius))
    for index, count in enumerate(corners):
        centre_x, centre_y, r, fill = x[index], y[index], radius[index], tuple(colour[index])
        if count == 2:
            pen.ellipse((centre_x - r, centre_y - r, centre_x + r, centre_y + r), fill=fill)
        else:
            pen.polygon(_corners(centre_x, centre_y, r, max(count, 3), turn[index]), fill=fill)
    return _strew_crumbs(rng, np.asarray(image), palette, zoom)


def _strew_crumbs(rng: np.random.Generator, leaves: Pixels, palette: npt.NDArray[np.int64], zoom: float) -> Pixels:
    """``leaves`` under the leaves that are too small and too many to draw one by one."""
    height, width = leaves.shape[:2]
    small = _cut(_crumb_tile(), rng, math.ceil(width / zoom), math.ceil(height / zoom))
    crumbs = np.asarray(Image.fromarray(np.ascontiguousarray(small)).resize((width, height), Image.Resampling.NEAREST))
    colours = _leaf_colours(rng, palette, 256).astype(np.uint8)
    return np.where(crumbs[..., None] > 0, colours[crumbs], leaves)


@lru_cache(maxsize=1)
def _crumb_tile() -> Pixels:
    """(TILE_PX, TILE_PX) of discs below LEAF_MIN_PX, without a seam: 0 where there is none, else a colour's index."""
    rng = np.random.default_rng(3)
    image = Image.new("L", (TILE_PX, TILE_PX))
    pen = ImageDraw.Draw(image)
    radii = _radii(
        rng, int(CRUMB_COVERAGE * TILE_PX**2 / _mean_area(CRUMB_MIN_PX, LEAF_MIN_PX)), CRUMB_MIN_PX, LEAF_MIN_PX
    )
    for r in radii.tolist():
        x, y = rng.uniform(0, TILE_PX, 2).tolist()
        fill = int(rng.integers(1, 256))
        for left in (x - TILE_PX, x, x + TILE_PX):
            for top in (y - TILE_PX, y, y + TILE_PX):
                if -r < left < TILE_PX + r and -r < top < TILE_PX + r:
                    pen.ellipse((left - r, top - r, left + r, top + r), fill=fill)
    return np.asarray(image)


def _corners(x: float, y: float, r: float, count: int, turn: float) -> list[float]:
    """A regular polygon as a flat list x0, y0, x1, y1, ..."""
    step = 2 * math.pi / count
    angles = [turn + step * k for k in range(count)]
    return [v for a in angles for v in (x + r * math.cos(a), y + r * math.sin(a))]


def _mean_area(least: float, most: float) -> float:
    """Of discs whose radii have the density r^-3 between ``least`` and ``most``."""
    return 2 * math.pi * math.log(most / least) / (least**-2 - most**-2)


def _radii(rng: np.random.Generator, count: int, least: float, most: float) -> npt.NDArray[np.float64]:
    """``count`` radii of density r^-3: each octave covers the same area."""
    return np.asarray((least**-2 - rng.random(count) * (least**-2 - most**-2)) ** -0.5)


def _scatter(
    rng: np.random.Generator, width: int, height: int, zoom: float
) -> tuple[list[float], list[float], list[float]]:
    """Radii, x and y of the leaves that touch the window: a Poisson field over the plane, as dense at its borders."""
    octaves = math.log(LEAF_MAX / LEAF_MIN_PX * height)
    grid = LEAF_MIN_PX * zoom * np.exp((np.arange(256) + 0.5) / 256 * octaves)
    expected = COVERAGE * octaves / 256 / (math.pi * grid**2) * (width + 2 * grid) * (height + 2 * grid)
    radius = np.repeat(grid, rng.poisson(expected))
    rng.shuffle(radius)
    x = rng.uniform(-radius, width + radius)
    y = rng.uniform(-radius, height + radius)
    return radius.tolist(), x.tolist(), y.tolist()


def _palette(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(8, 4) RGBA: a few hues around one mood, dark to light."""
    mood, spread = rng.random(), rng.uniform(0.05, 0.5)
    hue = (mood + spread * rng.standard_normal(8)) % 1.0
    saturation, value = rng.beta(2, 3, 8), rng.uniform(0.15, 1.0, 8)
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    colour = value[:, None] * (1 - saturation[:, None] * (1 - wheel))
    return np.column_stack([colour * 255, rng.uniform(0, 255, 8)]).astype(np.int64)


def _leaf_colours(rng: np.random.Generator, palette: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """(count, 4) RGBA: a palette entry each, lighter or darker, with a roughness of its own."""
    colour = palette[rng.integers(0, len(palette), count)] * rng.uniform(0.6, 1.25, (count, 1))
    return np.clip(colour + rng.normal(0, 8, (count, 4)), 0, 255).astype(np.int64)


@lru_cache(maxsize=1)
def _fractal_tile() -> Floats:
    """(TILE_PX, TILE_PX) of 1/f noise that repeats without a seam, mean 0, deviation 1."""
    white = np.random.default_rng(1).standard_normal((TILE_PX, TILE_PX))
    frequency = np.hypot(np.fft.fftfreq(TILE_PX)[:, None], np.fft.rfftfreq(TILE_PX)[None, :])
    frequency[0, 0] = np.inf
    tile = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(TILE_PX, TILE_PX))
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


def _cut(tile: npt.NDArray[Sample], rng: np.random.Generator, width: int, height: int) -> npt.NDArray[Sample]:
    """A window of the endless repetition of ``tile`` at a random place."""
    top, left = (int(v) for v in rng.integers(0, TILE_PX, 2))
    rows, columns = -(-(top + height) // TILE_PX), -(-(left + width) // TILE_PX)
    repeats = (rows, columns) + (1,) * (tile.ndim - 2)
    return np.tile(tile, repeats)[top : top + height, left : left + width]


def _texture(rng: np.random.Generator, roughness: npt.NDArray[np.uint8]) -> Floats:
    """Gain of the fine structure: each leaf modulates the same 1/f field by its own roughness."""
    height, width = roughness.shape
    field = _cut(_fractal_tile(), rng, width, height)
    depth = np.float32(rng.uniform(0.1, 0.3) / 255)
    return np.asarray(np.float32(1) + roughness * depth * field, np.float32)


def _light(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Gain of uneven light: the same kind of field, larger, about exposure 1."""
    zoom = rng.uniform(2.0, 5.0)
    small = _cut(_fractal_tile(), rng, math.ceil(width / zoom), math.ceil(height / zoom))
    field = Image.fromarray(np.ascontiguousarray(small)).resize((width, height), Image.Resampling.BILINEAR)
    exposure, depth = rng.uniform(0.9, 1.5), rng.uniform(0.03, 0.12)
    return np.clip(exposure * (1 + depth * np.asarray(field)), 0, None).astype(np.float32)


def vignetting_gain(width: int, height: int, strength: float) -> Floats:
    """(height, width) gain 1 - strength + strength / (1 + 2.0625 r^2 + 8.75 r^4 + 0.0313 r^6).

    r = radius / half diagonal of the photo; the scene's margin lies beyond r = 1.
    """
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None, :]
    half_diagonal = math.hypot(width, height) / 2 / (1 + 2 * MARGIN)
    r2 = (x * x + y * y) / np.float32(half_diagonal**2)
    gain = 1 / (1 + r2 * (2.0625 + r2 * (8.75 + r2 * 0.0313)))
    return np.asarray(1 - strength + strength * gain, np.float32)


def _refract(rng: np.random.Generator, scene: Pixels, width: int, height: int, chromatic: float) -> Image.Image:
    """The scene at the photo's size, red a little larger and blue a little smaller about the common centre."""
    shift = rng.uniform(0.5, 1.0, 2) * CHROMATIC_MAX * chromatic
    scales = (1 + shift[0], 1.0, 1 - shift[1])
    scene_height, scene_width = scene.shape[:2]
    k = float(rng.uniform(*SHARPENING))
    crisp = Image.fromarray(scene).filter(ImageFilter.Kernel((3, 3), [-k] * 4 + [1 + 8 * k] + [-k] * 4, scale=1))
    planes = []
    for plane, scale in zip(crisp.split(), scales, strict=True):
        half_width = scene_width / 2 / (1 + 2 * MARGIN) / scale
        half_height = scene_height / 2 / (1 + 2 * MARGIN) / scale
        box = (
            scene_width / 2 - half_width,
            scene_height / 2 - half_height,
            scene_width / 2 + half_width,
            scene_height / 2 + half_height,
        )
        planes.append(plane.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return Image.merge("RGB", planes)


@lru_cache(maxsize=1)
def _noise_tile() -> Pixels:
    """(TILE_PX, TILE_PX, 3) of white noise about 128."""
    noise = np.random.default_rng(2).normal(128, NOISE_SIGMA, (TILE_PX, TILE_PX, 3))
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def _add_noise(rng: np.random.Generator, image: Image.Image, strength: float) -> Pixels:
    """Sensor noise of 1 to 6 grey levels; so wide a range that its level after resizing says little about the scale."""
    sigma = strength * float(np.exp(rng.uniform(0, math.log(6))))
    scaled = [round(128 + (v - 128) * sigma / NOISE_SIGMA) for v in range(256)]
    table = np.clip(scaled, 0, 255).astype(np.uint8)
    noise = _cut(table[_noise_tile()], rng, image.width, image.height)
    return np.asarray(ImageChops.add(image, Image.fromarray(np.ascontiguousarray(noise)), offset=-128))


def encode_jpeg(image: Pixels, facts: CameraFacts, quality: int = 88) -> bytes:
    """JPEG (4:2:0, 16 px blocks) with the EXIF block of ``facts``; grey if ``image`` has one channel."""
    is_grey = image.shape[2] == 1
    body = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image),
        quality=quality,
        colorspace="GRAY" if is_grey else "RGB",
        colorsubsampling="GRAY" if is_grey else "420",
    )
    exif = exif_block(facts)
    return bytes(body[:2]) + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + bytes(body[2:])


def exif_block(facts: CameraFacts) -> bytes:
    """``Exif\\0\\0`` and the TIFF structure, as it stands in an APP1 segment."""
    exif = Image.Exif()
    exif[0x0112] = facts.orientation
    for tag, text in ((0x010F, facts.make), (0x0110, facts.model), (0x0131, facts.software)):
        if text:
            exif[tag] = text
    if facts.taken_at is not None:
        stamp = facts.taken_at.strftime("%Y:%m:%d %H:%M:%S")
        exif[0x0132] = stamp
        exif.get_ifd(0x8769)[0x9003] = stamp
    return exif.tobytes()
