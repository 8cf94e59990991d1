"""Measure each photo once: size, EXIF, signs of editing, perceptual hashes, sharpness, brightness, a small thumbnail.

The hash is imagehash's ``phash(hash_size=16)`` of the upright grey picture: the 16 x 16 lowest coefficients of the DCT
of 64 x 64 pixels, each compared with their median. Mirroring a picture flips the sign of every other coefficient and
transposing it transposes them, so one DCT gives the hashes of all eight orientations.

Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1;
Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000 (variance of the Laplacian).
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from prefect import task

from storage import blobs, manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from tasks import caching, imaging
from tasks.edits import edit_facts
from tasks.exif import embedded, facts

LOG = logging.getLogger(__name__)
THREADS = 4  # decoding releases the lock of the interpreter, and reading waits for the disk
PROBE_PX = 256  # both sides of what is decoded are at least this long
SHARPNESS_PX = 256  # long side at which sharpness is compared, whatever the size of the photo
THUMBNAIL_PX = 32
_HASH, _DCT = 16, 64
_GREY_SPREAD = 8  # of 255: chroma that JPEG leaves in a picture without colour

Coefficients = npt.NDArray[np.float64]


def dct_matrix(size: int) -> Coefficients:
    """The unnormalised DCT-II as a matrix: row k is 2 cos(pi k (2n + 1) / 2 size)."""
    frequency, place = np.mgrid[:size, :size]
    matrix: Coefficients = 2.0 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))
    return matrix


_BASIS = dct_matrix(_DCT)[:_HASH]
_ALTERNATING = 1.0 - 2.0 * (np.arange(_HASH) % 2)
_TRANSPOSED = {5, 6, 7, 8}
_ROWS_FLIPPED = {3, 4, 7, 8}
_COLUMNS_FLIPPED = {2, 3, 6, 7}


def low_frequencies(grey: imaging.Pixels) -> Coefficients:
    """The 16 x 16 lowest DCT coefficients of ``grey`` squeezed to 64 x 64."""
    small = np.asarray(Image.fromarray(grey).resize((_DCT, _DCT), Image.Resampling.LANCZOS), dtype=np.float64)
    # Rounded, so that coefficients which are zero but for the order of a sum are zero on every machine.
    return np.round(_BASIS @ small @ _BASIS.T, 3) + 0.0


def turned(coefficients: Coefficients, orientation: int) -> Coefficients:
    """The coefficients of the picture turned by an EXIF orientation."""
    result = coefficients.T if orientation in _TRANSPOSED else coefficients
    if orientation in _ROWS_FLIPPED:
        result = result * _ALTERNATING[:, None]
    return result * _ALTERNATING if orientation in _COLUMNS_FLIPPED else result


def hash_bits(coefficients: Coefficients) -> bytes:
    """256 bits, row by row: is the coefficient above the median of all?"""
    return np.packbits(coefficients > np.median(coefficients)).tobytes()


def sharpness(grey: imaging.Pixels) -> float:
    """Variance of the Laplacian at a long side of 256 px (smaller pictures as they are); 0 is flat."""
    scale = SHARPNESS_PX / max(grey.shape)
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in grey.shape)
        grey = imaging.resize_area(grey, height, width)
    if min(grey.shape) < 3:
        return 0.0
    g = grey.astype(np.float32)
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))


def is_grey(rgb: imaging.Pixels) -> bool:
    """Whether 99 % of the pixels have (nearly) no colour."""
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    return bool(np.percentile(spread, 99) <= _GREY_SPREAD)


def measure_photo(data: bytes) -> dict[str, Any]:
    """The columns of ``records.MEASURE`` for the file ``data``; for a damaged one only measure_reason."""
    try:
        columns = header_facts(data)
        rgb = imaging.decode_upright(data, columns["exif_orientation"], min_height=PROBE_PX, min_width=PROBE_PX)
    except imaging.BadImage as error:
        return {"measure_reason": error.reason}
    return columns | picture_facts(rgb)


def header_facts(data: bytes) -> dict[str, Any]:
    """The columns that need no decoding. Raises BadImage."""
    width, height = imaging.stored_size(data)
    blocks = embedded(data)
    exif = facts(data, blocks)
    tier, evidence = edit_facts(imaging.identify(data), exif, blocks)
    return {
        "width": width,
        "height": height,
        "exif_orientation": exif.orientation,
        "long_px": max(width, height),
        "short_px": min(width, height),
        "aspect_milli": round(1000 * max(width, height) / min(width, height)),
        "exif_make": exif.make,
        "exif_model": exif.model,
        "exif_software": exif.software,
        "exif_taken": exif.taken,
        "edit_tier": tier,
        "edit_evidence": evidence,
    }


def picture_facts(rgb: imaging.Pixels) -> dict[str, Any]:
    """The columns that are measured on the upright pixels themselves."""
    grey = imaging.to_grey(rgb)
    coefficients = low_frequencies(grey)
    hashes = [hash_bits(turned(coefficients, orientation)) for orientation in range(1, 9)]
    return {
        "phash": hashes[0],
        "phash_orientations": b"".join(hashes),
        "sharpness": sharpness(grey),
        "brightness": float(grey.mean()),
        "is_grey": is_grey(rgb),
        "thumbnail": imaging.resize_area(grey, THUMBNAIL_PX, THUMBNAIL_PX).tobytes(),
    }


def measure_row(where: Layout, row: dict[str, Any]) -> dict[str, Any]:
    """The manifest row of one held photo; raises BlobCorrupt if our copy is not what it was."""
    return {**row, **measure_photo(blobs.get(where, row["sha256"], row["format"]))}


@task(**caching.stage("measure"))
def measure(held: ManifestRef) -> ManifestRef:
    """The measures of every photo of ``held``; a damaged photo is a row with a reason."""
    where = layout()
    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(lambda row: measure_row(where, row), manifest.read(where, held).to_pylist()))
    counts = Counter(row.get("measure_reason") or "measured" for row in rows)
    LOG.info("measure: %s", " ".join(f"{reason}={count}" for reason, count in sorted(counts.items())))
    return manifest.write_rows(where, "measure", rows)
