"""Whatever bytes arrive, they are a picture or a reason."""

import contextlib
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.pictures import containers, edits, exif, imaging, lossless


def _files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    block = Image.Exif()
    block[0x0112], block[0x010F] = 6, "Canon"
    kinds = [("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("PNG", "RGB", {}), ("PNG", "P", {}), ("WEBP", "RGB", {})]
    files = []
    for image_format, mode, options in [*kinds, ("WEBP", "RGB", {"lossless": True}), ("GIF", "RGB", {})]:
        out = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(out, image_format, exif=block, **options)
        files.append(out.getvalue())
    return files


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_files()), st.data())
def test_damage_never_raises_anything_but_its_reason(data: bytes, draw: st.DataObject) -> None:
    """Cut and overwritten files verify, or raise BadImage; what is read from their headers never raises at all."""
    harmed = bytearray(data[: draw.draw(st.integers(len(data) // 4, len(data)), "cut")])
    for place, value in draw.draw(
        st.lists(st.tuples(st.integers(0, len(harmed) - 1), st.integers(0, 255)), max_size=8)
    ):
        harmed[place] = value
    blocks = containers.blocks_of(bytes(harmed))
    exif.turned_exif(blocks, is_transposed=True, turn=lambda thumbnail: thumbnail[::-1])
    lossless.noted_upright(blocks, 6)
    edits.edit_facts("JPEG", exif.facts(blocks), blocks, (40, 24))
    with contextlib.suppress(imaging.BadImage):
        imaging.verify(bytes(harmed), max_pixels=1_000_000)
