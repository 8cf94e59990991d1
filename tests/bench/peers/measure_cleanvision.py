"""All of cleanvision's issues for measuring.py: ``measure_cleanvision.py FOLDER WORK``, in this process."""

import sys

import measured
from cleanvision import Imagelab


def find(folder: str) -> int:
    """Rows of its table."""
    lab = Imagelab(data_path=folder)
    lab.find_issues(n_jobs=1, verbose=False)
    return len(lab.issues)


if __name__ == "__main__":
    measured.report(lambda: find(sys.argv[1]))
