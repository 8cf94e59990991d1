"""The bound of measuring.py: ``measure_simplejpeg.py FOLDER WORK`` reads and decodes, scaled, and does nothing else."""

import sys
from pathlib import Path

import measured
import simplejpeg


def decode(folder: Path) -> int:
    """Every file, as small as both sides stay 256 px long."""
    files = sorted(folder.glob("*.jpg"))
    return sum(
        simplejpeg.decode_jpeg(file.read_bytes(), "RGB", min_height=256, min_width=256).shape[2] == 3 for file in files
    )


if __name__ == "__main__":
    measured.report(lambda: decode(Path(sys.argv[1])))
