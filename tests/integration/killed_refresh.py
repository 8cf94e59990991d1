"""Runs refreshes in processes that a test may kill: ``python killed_refresh.py``, told what to do line by line.

``acquire {dataset}`` or ``refresh {dataset}`` starts one and answers with its process id; ``wait PID`` answers with how
it ended. Children are forked, so that the seconds of importing are spent once.
"""

import json
import os
import sys
import traceback

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

import tasks.download
from flows import acquire
from flows.refresh import RUNNER, refresh_dataset
from tasks import web
from tasks.dataset import Dataset
from tasks.sources import flickr, windows

THREADS = 4  # that a process downloads with
windows.TARGET, flickr.PER_PAGE, tasks.download.THREADS = 24, 10, THREADS
acquire.MIN_BATCH_PHOTOS = acquire.FULL_BATCH_PHOTOS = 8
web.LIMITS = web.Limits(
    retries=2, backoff_s=0.001, pauses=1, pause_s=0.01, api_per_s=1e4, api_burst=1000, images_per_s=1e4,
    images_burst=1000,
)  # fmt: skip


@flow(task_runner=RUNNER)
def acquire_photos(dataset: Dataset) -> None:
    """The first half of a refresh."""
    acquire.find(dataset)
    acquire.fetch(dataset)


def child(what: str, dataset: Dataset) -> int:
    """0 if the run ended well."""
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            acquire_photos(dataset) if what == "acquire" else refresh_dataset(dataset, announce=False)
    except Exception:  # noqa: BLE001  the edge of a process
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Until the end of the input."""
    for line in sys.stdin:
        what, _, argument = line.partition(" ")
        if what == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(int(argument), 0)[1])
        elif not (answer := os.fork()):
            os._exit(child(what, Dataset.model_validate(json.loads(argument))))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
