"""imagededup's perceptual hash for measuring.py: ``measure_imagededup.py FOLDER WORK``, without its processes."""

import sys
from pathlib import Path

import measured
from imagededup.methods import PHash


def encode(folder: str) -> int:
    """Files with a hash."""
    hasher = PHash(verbose=False)
    return sum(hasher.encode_image(image_file=str(file)) is not None for file in Path(folder).glob("*.jpg"))


if __name__ == "__main__":
    measured.report(lambda: encode(sys.argv[1]))
