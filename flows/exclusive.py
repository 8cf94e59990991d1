"""One at a time, over all flow runs of a server: refreshes of one dataset, trainings of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Wait until no other run holds ``name``, and hold it for the block, whichever deployment started either."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
    with concurrency(name, occupy=1, strict=True):
        yield
