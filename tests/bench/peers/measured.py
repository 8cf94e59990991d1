"""How a job of a contender is timed: wall and CPU time of the call alone, and the peak memory of its process."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def report(call: Callable[[], int]) -> None:
    """Print what ``call`` took, and what it returned as ``kept``."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    kept = call()
    figures = {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}
    status = Path("/proc/self/status").read_text()  # getrusage would count what the process was forked from
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    sys.stdout.write(json.dumps(figures | {"peak_mb": peak_mb, "kept": kept}) + "\n")
