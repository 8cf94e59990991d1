"""Photographs of scenes that are scale-free by construction, through the lens of the synthetic camera.

A scene is a Gaussian random field in three correlated colours whose power falls as 1 / k^2 in two dimensions (its
amplitude as 1 / k): every octave of frequency has the same variance, so a crop, enlarged, has the law of the whole but
for an additive constant. The law holds up to the Nyquist frequency of the photo, which is at least three times
as wide as the widest frame, and no frequency is the lowest one within the photo. Nothing is done to it point by point.
NumPy and Pillow only.
"""

import importlib.util
import io
import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
CAMERA = Path(__file__).resolve().parents[2] / "tasks/sources/standin/camera.py"
ASPECT = 1.5
LEAST_WIDTH_PX = {"fields": 1152, "leaves": 1620}
WIDTHS_OF_FRAME = {"fields": 3.0, "leaves": 2.6}  # at least; leaves are drawn up to 2.6 times smaller than the photo
COARSE_PX = 8  # of the photo, a sample of the coarse grid: the longest wave is as many photos long
CROSSOVER_PX = (128.0, 512.0)  # shorter waves are those of the fine grid alone, longer ones those of the coarse one
MEAN, MEAN_STD = (112.0, 144.0), 6.0  # grey levels: of a scene, and of each of its colours about that
CONTRAST = (24.0, 38.0)  # grey levels: the standard deviation of a scene; of pixels fewer than 0.5 % are clipped
OWN_COLOUR = 0.4  # of what all three colours have in common: the standard deviation of a mixing coefficient


@dataclass(frozen=True)
class PhotoSpec:
    """How a photo comes about. ``noise``: strength of the sensor's; ``quality`` of the JPEG, None for no JPEG."""

    scenes: Literal["fields", "leaves"] = "fields"
    noise: float = 1.0
    quality: int | None = 88

    @property
    def label(self) -> str:
        """For the name of a folder."""
        return f"{self.scenes}-{self.noise:g}-{self.quality or 'exact'}"

    def width_px(self, widest_frame: int) -> int:
        """Of a photo, if ``widest_frame`` is to be made of it."""
        return max(LEAST_WIDTH_PX[self.scenes], math.ceil(WIDTHS_OF_FRAME[self.scenes] * widest_frame))


@lru_cache(maxsize=1)
def camera() -> ModuleType:
    """The synthetic camera, loaded by its path: the package that it lies in wants all of Darkroom installed."""
    if importlib.util.find_spec("simplejpeg") is None:
        sys.modules.setdefault("simplejpeg", ModuleType("simplejpeg"))  # only its encoder, which is not called
    spec = importlib.util.spec_from_file_location("synthetic_camera", CAMERA)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take(scene: int, strength: float, widest_frame: int, spec: PhotoSpec) -> Image.Image:
    """The photo of one scene through a lens of that strength. Same arguments, same pixels."""
    made = camera()
    lens = made.Lens(vignetting=strength, chromatic=strength, noise=spec.noise)
    width = spec.width_px(widest_frame)
    take_one = made.render if spec.scenes == "leaves" else take_field
    photo = Image.fromarray(take_one(scene, width, round(width / ASPECT), lens))
    if spec.quality is None:
        return photo
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=spec.quality, subsampling="4:2:0")
    return Image.open(stream).convert("RGB")


def take_field(seed: int, width: int, height: int, lens: Any) -> Pixels:
    """A scene of three fields through the camera's own lens and sensor, (height, width, 3)."""
    made, rng = camera(), np.random.default_rng(seed)
    scene_width, scene_height = (math.ceil(side * (1 + 2 * made.MARGIN)) for side in (width, height))
    scene = colours(rng, scene_width, scene_height)
    gain = made.vignetting_gain(scene_width, scene_height, float(lens.vignetting * rng.uniform(0.6, 1.0)))
    exposed = np.clip(np.rint(scene * gain[..., None]), 0, 255).astype(np.uint8)
    return np.asarray(made._add_noise(rng, made._refract(rng, exposed, width, height, lens.chromatic), lens.noise))


def colours(rng: np.random.Generator, width: int, height: int) -> Floats:
    """(height, width, 3) grey levels, not clipped: three fields in a random mixture for each colour."""
    mixing = rng.normal(0, OWN_COLOUR, (3, 3)) + np.array([1, 0, 0])
    mixing *= rng.uniform(*CONTRAST) / np.linalg.norm(mixing, axis=1, keepdims=True)
    mean = rng.uniform(*MEAN) + rng.normal(0, MEAN_STD, 3)
    fields = np.stack([field(rng, width, height) for _ in range(3)], -1)
    return np.asarray(fields @ mixing.T.astype(np.float32) + mean.astype(np.float32))


def field(rng: np.random.Generator, width: int, height: int) -> Floats:
    """(height, width) of a Gaussian field of power 1 / k^2, deviation 1, from waves of 2 px to 8 times the picture.

    Two periodic fields are added: a fine one on a grid twice as wide and high as the picture, and a coarse one of
    larger pixels. Between their ranges of wavelength the power passes smoothly from one to the other.
    """
    fine = synthesise(rng, _grid(2 * height), _grid(2 * width), 1)[:height, :width]
    coarse = synthesise(rng, _grid(height), _grid(width), COARSE_PX)
    box = (4, 4, 4 + width / COARSE_PX, 4 + height / COARSE_PX)  # a cubic needs pixels around it
    enlarged = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box)
    octaves = math.log2(COARSE_PX * width / 2)
    return np.asarray((fine + np.asarray(enlarged)) / math.sqrt(octaves * math.log(2)), np.float32)


def _grid(side: int) -> int:
    """At least ``side``, and quick to transform."""
    return -(-side // 128) * 128


def synthesise(rng: np.random.Generator, height: int, width: int, pixel: int) -> Floats:
    """(height, width) of a periodic field of variance ln 2 an octave, its pixels ``pixel`` photo pixels wide."""
    amplitude = _amplitude(height, width, pixel)
    parts = rng.standard_normal((*amplitude.shape, 2), np.float32)
    return np.fft.irfft2(parts.view(np.complex64)[..., 0] * amplitude, s=(height, width)).astype(np.float32)


@lru_cache(maxsize=4)
def _amplitude(height: int, width: int, pixel: int) -> Floats:
    """(height, width // 2 + 1) factors of complex normal numbers whose parts have deviation 1, for ``irfft2``.

    A coefficient of a field of spectral density P has variance N P / pixel^2, N = height x width. On the first and the
    last column, ``irfft2`` keeps half of that: the part which is its own mirror image.
    """
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) / pixel
    k[0, 0] = np.inf
    short, long = np.log(CROSSOVER_PX)
    passed = np.clip((long + np.log(k)) / (long - short), 0, 1)
    share = passed**2 * (3 - 2 * passed)
    density = (share if pixel == 1 else 1 - share) / (2 * math.pi * k**2)
    amplitude = np.sqrt(density * height * width / 2) / pixel
    amplitude[:, [0, -1]] *= math.sqrt(2)
    return np.asarray(amplitude, np.float32)
