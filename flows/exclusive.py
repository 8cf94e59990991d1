"""One at a time, over all flow runs of a server: refreshes of one dataset, trainings of one machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from flows.progress import say

LEASE_S = 60.0  # renewed while its holder lives: a run that was killed keeps others waiting no longer than this
LOG = logging.getLogger(__name__)


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Wait until no other run holds ``name``, and hold it for the block, whichever deployment started either."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
        is_taken = client.read_global_concurrency_limit_by_name(name).active_slots > 0
    if is_taken:
        say(LOG, f"another run holds {name!r}: waiting until it ends, or {LEASE_S:.0f} s if it was killed")
    with concurrency(name, occupy=1, lease_duration=LEASE_S, strict=True):
        yield
