"""Darkroom as a contender: what the bench runs in processes of its own, in the environment that a worker has.

``python -m acquire.ours JOB ARGUMENTS...`` does one job of JOBS and prints its figures as one line of JSON.
Both folders, the bench and the checkout, have to be on PYTHONPATH.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from acquire.listed_world import WORD, listed_world
from prefect import flow

from flows import acquire, refresh
from storage import blobs, catalog, ledger, manifest
from storage.layout import Layout, layout
from storage.records import SCHEMAS
from tasks.dataset import Dataset
from tasks.download import download
from tasks.filter import FilterRules
from tasks.sources.base import Query
from tasks.sources.standin import Photo
from tasks.sources.standin.sizes import ORIGINAL, sized

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
TINY_PX = (32, 48)
ALL_SIZES = FilterRules(min_long_px=1, min_short_px=1)
DATASET = Dataset(name="bench", queries=(Query(text=WORD),), filter=ALL_SIZES)


def fetch_with_task(url_file: str) -> dict[str, float]:
    """Download what ``url_file`` names by calling the download task's function as the flow does, without Prefect."""
    batches = [manifest.write(layout(), "wanted", rows) for rows in _batches(_listed(url_file))]
    with ThreadPoolExecutor(acquire.WORKERS) as pool:
        list(pool.map(partial(download.fn, "flickr", DATASET.name), batches))
    return {}


def fetch_with_flow(url_file: str) -> dict[str, float]:
    """Download what ``url_file`` names as a refresh does: task runs of a Prefect server, budgets, ledger."""
    _listed(url_file)
    flow(name="fetch", task_runner=refresh.RUNNER, validate_parameters=False)(acquire.fetch)(DATASET)
    return {}


def find() -> dict[str, float]:
    """Search for all photos of the site, into the ledger."""
    began = time.monotonic()
    _find()
    rows = ledger.read(layout(), DATASET.name, "windows").to_pylist()
    unique = len(ledger.read(layout(), DATASET.name, "listings")["photo_id"].unique())
    return {"seconds": time.monotonic() - began, "unique": unique, "windows": len(rows)}


def refreshed() -> dict[str, float]:
    """One refresh of the dataset, from its first line to its snapshot."""
    times: dict[str, float] = {}
    for name in ("find", "fetch"):
        setattr(acquire, name, _timed(getattr(acquire, name), name, times))
    began = time.monotonic()
    snapshot = refresh.refresh_dataset(DATASET, announce=False, allow_jump=True)
    return times | {"seconds": time.monotonic() - began, "version": getattr(snapshot, "version", 0)}


def remember(image_host: str, count: str, share: str, with_files: str) -> dict[str, float]:
    """Put into the ledger that ``share`` of the site's photos were downloaded, with small files or without."""
    photos = [photo for photo in listed_world(int(count)).photos() if int(photo.id) % 100 < 100 * float(share)]
    rows = [_attempt(layout(), photo, image_host, with_files == "files") for photo in photos]
    ledger.adopt(layout(), DATASET.name, manifest.write_rows(layout(), "attempts", rows))
    return {"photos": len(rows)}


def peak() -> dict[str, float]:
    """Megabytes of this process at most, after each thing that a refresh asks of all photos of the site."""
    peaks = {"start_mb": _peak_mb()} | find() | {"search_mb": _peak_mb()}
    for name, ask in (
        ("wanted", lambda: catalog.wanted(layout(), DATASET.name, datetime.now(UTC))),
        ("held", lambda: catalog.held(layout(), DATASET.name)),
        ("facts", lambda: manifest.write(layout(), "facts", catalog.facts(layout(), DATASET.name))),
    ):
        began = time.monotonic()
        peaks[f"{name}_rows"] = len(found) if isinstance(found := ask(), pa.Table) else found.rows
        peaks |= {f"{name}_s": time.monotonic() - began, f"{name}_mb": _peak_mb()}
    return peaks


def _find() -> None:
    """``acquire.find`` as a flow, as a refresh runs it."""
    flow(name="find", task_runner=refresh.RUNNER, validate_parameters=False)(acquire.find)(DATASET)


def _timed(work: Callable[[Dataset], None], name: str, times: dict[str, float]) -> Callable[[Dataset], None]:
    """``work``, whose seconds go into ``times``."""

    def timed(dataset: Dataset) -> None:
        began = time.monotonic()
        work(dataset)
        times[f"{name}_s"] = time.monotonic() - began

    return timed


def _peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _listed(url_file: str) -> int:
    """Put the photos of a URL list into the ledger, as a search would have; returns how many."""
    urls = Path(url_file).read_text().split()
    listings = [
        {
            "source": "flickr", "photo_id": url.rsplit("/", 1)[1].partition("_")[0], "query_id": "bench",
            "observed_at": BEGAN, "owner_id": "1@N00", "licence": "CC0", "tags": [], "image_url": url,
            "size_label": "Original", "listed_width": 1440, "listed_height": 960, "uploaded_at": BEGAN,
            "fallbacks": [], "is_open": True,
        }
        for url in urls
    ]  # fmt: skip
    ledger.adopt(layout(), DATASET.name, manifest.write_rows(layout(), "listings", listings))
    return len(urls)


def _batches(photos: int) -> Iterator[pa.Table]:
    """What the ledger lacks, cut as the flow cuts it."""
    wanted = catalog.wanted(layout(), DATASET.name, datetime.now(UTC))
    assert wanted.num_rows == photos
    size = acquire.batch_photos(photos)
    return (wanted.slice(start, size) for start in range(0, photos, size))


def _attempt(where: Layout, photo: Photo, image_host: str, with_file: bool) -> dict[str, Any]:
    """The row of a download that went well."""
    found = sized(photo, ORIGINAL)
    assert found is not None
    rng = np.random.default_rng(int(photo.id))
    row = dict.fromkeys(SCHEMAS["attempts"].names) | {
        "source": "flickr", "photo_id": photo.id, "format": "JPEG", "attempt": 0, "fetched_at": BEGAN,
        "fetched_url": f"http://{image_host}/{found.path}", "fetched_label": "Original", "http_status": 200,
    }  # fmt: skip
    if not with_file:
        return row | {"sha256": rng.bytes(32).hex(), "bytes": 300_000}
    data = simplejpeg.encode_jpeg(rng.integers(0, 256, (*TINY_PX, 3), np.uint8), quality=80)
    return row | {"sha256": blobs.put(where, data, "JPEG"), "bytes": len(data)}


JOBS: dict[str, Callable[..., dict[str, float]]] = {
    "fetch-with-task": fetch_with_task,
    "fetch-with-flow": fetch_with_flow,
    "find": find,
    "refresh": refreshed,
    "remember": remember,
    "peak": peak,
}

if __name__ == "__main__":
    figures = JOBS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(figures), flush=True)
