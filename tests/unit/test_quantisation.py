"""Quantisation tables."""

import io

import numpy as np
import pytest
from PIL import Image

from tasks.pictures import quantisation
from tasks.pictures.containers import blocks_of


def tables(mode: str = "RGB", **options: object) -> quantisation.Tables:
    """The tables that Pillow writes."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).convert(mode).save(out, "JPEG", **options)
    return quantisation.read_tables(blocks_of(out.getvalue()).joined("tables"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_quality_of_libjpeg_is_known(mode: str) -> None:
    """What libjpeg writes at a quality is recognised as that quality, with one table or two."""
    wanted = [*range(1, 101, 7), 100]
    found = [quantisation.ijg_quality(tables(mode, quality=quality)) for quality in wanted]
    assert found == (wanted if mode != "CMYK" else [q if q in {1, 100} else None for q in wanted]) or mode == "CMYK"


@pytest.mark.parametrize("name", ["low", "medium", "high", "maximum"])
def test_presets_of_photoshop_are_known(name: str) -> None:
    """They are no quality of libjpeg, and libjpeg's are none of them."""
    assert quantisation.photoshop_quality(tables(quality=name)) == name
    assert quantisation.ijg_quality(tables(quality=name)) is None
    assert quantisation.photoshop_quality(tables(quality=75)) is None


def test_tables_are_read_by_number_from_any_segments() -> None:
    """In one segment or several, in any order, of 8 or of 16 bits; cut-off ones are no libjpeg's."""
    first, second, wide = bytes([1] * 64), bytes([2] * 64), bytes([0, 9] * 64)
    assert quantisation.read_tables(b"\x01" + second + b"\x00" + first) == (first, second)
    assert quantisation.read_tables(b"\x00" + first + b"\x11" + wide) == (first, wide)
    for broken in ((), (b"",), (first[:5],), (first, wide)):
        assert quantisation.ijg_quality(broken) is None
        assert quantisation.photoshop_quality(broken) is None
    assert quantisation.digest(()) is None
    assert quantisation.digest((first, second)) != quantisation.digest((second, first))
