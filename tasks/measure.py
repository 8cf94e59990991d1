"""Measure each photo once: size, EXIF, signs of editing, perceptual hashes, sharpness, light, a small thumbnail.

The file is read once (its sha256 is compared on the way), its header is walked once, and its pixels are decoded once,
at a scale of 1/2, 1/4 or 1/8 where the format knows such, and brought to a long side of 256 pixels: so the size of a
photo changes none of its measures. What the header refuses is not decoded at all.

Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000 (variance of the Laplacian).
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from prefect import task

from storage import blobs, manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from tasks import caching
from tasks.pictures import hashing, imaging, quantisation
from tasks.pictures.containers import blocks_of
from tasks.pictures.edits import edit_facts
from tasks.pictures.exif import facts

LOG = logging.getLogger(__name__)
THREADS = 4  # decoding releases the lock of the interpreter, and reading waits for the disk
THUMBNAIL_PX = 32
_MOST_MILLI = 2**31 - 1  # that the column holds: a line of 3 million pixels decodes, and is longer than that
_GREY_SPREAD = 8  # of 255: chroma that JPEG leaves in a picture without colour


def sharpness(grey: imaging.Pixels) -> float:
    """Variance of the Laplacian; 0 is flat."""
    if min(grey.shape) < 3:
        return 0.0
    g = grey.astype(np.int16)
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))


def is_grey(rgb: imaging.Pixels) -> bool:
    """Whether 99 % of the pixels have (nearly) no colour."""
    red, green, blue = (np.ascontiguousarray(rgb[:, :, channel]) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return int(np.count_nonzero(spread > _GREY_SPREAD)) <= spread.size // 100


def light(grey: imaging.Pixels) -> dict[str, float]:
    """The columns brightness, 0..255, and entropy, 0..8 bits: how much the histogram of ``grey`` tells of a pixel."""
    shares = np.asarray(Image.fromarray(grey).histogram()) / grey.size
    entropy = -float(shares @ np.log2(shares, out=np.zeros(256), where=shares > 0))
    return {"brightness": float(shares @ np.arange(256)), "entropy": entropy + 0.0}


def measure_photo(data: bytes) -> dict[str, Any]:
    """The columns of ``records.MEASURE`` for the file ``data``; for a damaged one only measure_reason."""
    try:
        columns = header_facts(data)
        rgb = imaging.decode_measured(data, columns["exif_orientation"])
    except imaging.BadImage as error:
        return {"measure_reason": error.reason}
    return columns | picture_facts(rgb)


def header_facts(data: bytes) -> dict[str, Any]:
    """The columns that need no decoding. Raises BadImage where the header already says that nothing can be decoded."""
    width, height = imaging.stored_size(data)
    blocks = blocks_of(data)
    exif = facts(blocks)
    is_jpeg = imaging.identify(data) == "JPEG"
    tables = quantisation.read_tables(blocks.joined("tables"))
    tier, evidence = edit_facts(imaging.identify(data), exif, blocks, (width, height))
    return {
        "width": width,
        "height": height,
        "exif_orientation": exif.orientation,
        "long_px": max(width, height),
        "short_px": min(width, height),
        "aspect_milli": min(round(1000 * max(width, height) / min(width, height)), _MOST_MILLI),
        "exif_make": exif.make,
        "exif_model": exif.model,
        "exif_software": exif.software or exif.processing_software,
        "exif_taken": exif.taken,
        "edit_tier": tier,
        "edit_evidence": evidence,
        "quantisation": quantisation.digest(tables),
        "ijg_quality": quantisation.ijg_quality(tables),
        "is_progressive": blocks.is_progressive if is_jpeg else None,
    }


def picture_facts(rgb: imaging.Pixels) -> dict[str, Any]:
    """The columns that are measured on the upright pixels themselves, at the one scale of ``decode_small``."""
    grey = imaging.to_grey(rgb)
    return {
        **hashing.hash_facts(grey),
        **light(grey),
        "sharpness": sharpness(grey),
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
