"""The measure stage of measuring.py: ``measure_darkroom.py FOLDER WORK``, on one thread, with its Parquet file."""

import os
import sys
import tempfile
from pathlib import Path

import measured

folder, work = (Path(argument) for argument in sys.argv[1:])
os.environ["DARKROOM_ROOT"] = tempfile.mkdtemp(dir=work)  # before the first import: tasks learn it there
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from storage import blobs, manifest
from storage.layout import layout
from tasks import measure

measure.THREADS = 1


def held() -> manifest.ManifestRef:
    """All files as held photos."""
    files = sorted(folder.glob("*.jpg"))
    rows = [
        {"source": "folder", "photo_id": file.name, "format": "JPEG",
         "sha256": blobs.put(layout(), file.read_bytes(), "JPEG")}
        for file in files
    ]  # fmt: skip
    return manifest.write_rows(layout(), "held", rows)


if __name__ == "__main__":
    photos = held()
    measured.report(lambda: measure.measure.fn(photos).rows)
