"""fastdup's features, neighbours and statistics for measuring.py: ``measure_fastdup.py FOLDER WORK``, one thread."""

import sys
import tempfile

import fastdup
import measured


def run(folder: str, work: str) -> int:
    """Photos that it has read."""
    lab = fastdup.create(work_dir=tempfile.mkdtemp(dir=work), input_dir=folder)
    lab.run(num_threads=1, verbose=False, overwrite=True)
    return len(lab.annotations())


if __name__ == "__main__":
    measured.report(lambda: run(*sys.argv[1:]))
