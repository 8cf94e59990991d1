"""Photo files for a site to serve: 1440 x 960 px, about 300 KB each, no two alike, made once and kept.

They are windows of one large scene of the synthetic camera, so that 2,000 of them take seconds.
"""

import random
from pathlib import Path

import numpy as np
import simplejpeg

from tasks.sources.standin import Lens, render

WIDTH_PX, HEIGHT_PX = 1440, 960
SCENE_PX = (3240, 2160)
QUALITY = 90  # of this scene: 300 KB
SEED = 11


def make_photos(folder: Path, count: int) -> Path:
    """``folder`` with ``count`` JPEG files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(count) if not (folder / f"{number:05d}.jpg").is_file()]
    scene = render(SEED, *SCENE_PX, Lens()) if missing else None
    for number in missing:
        assert scene is not None
        chance = random.Random(f"{SEED}/{number}")
        left, top = chance.randrange(SCENE_PX[0] - WIDTH_PX), chance.randrange(SCENE_PX[1] - HEIGHT_PX)
        window = np.ascontiguousarray(scene[top : top + HEIGHT_PX, left : left + WIDTH_PX])
        data = simplejpeg.encode_jpeg(window, quality=QUALITY, colorsubsampling="420")
        part = folder / f".{number:05d}.part"
        part.write_bytes(data)
        part.rename(folder / f"{number:05d}.jpg")
    return folder
