"""The budget of a host over all workers of a Prefect server: a limit whose slots decay, leased in handfuls.

Where no flow runs (a script, a unit test) nobody shares, and the bucket of the process is all there is. In any hour all
workers together make at most rate x 3600 s, CAPACITY handfuls that had gathered, and one that was leased just before:
3,100 calls at 3,000 an hour. A worker that ends loses what it leased in vain: one handful at most.

Source: Prefect 3, ``server/models/concurrency_limits_v2.py``: slots in use are those of the last change, less
``slot_decay_per_second`` for each second since, rounded down.
"""

import re
import sys
from contextlib import suppress
from functools import cache
from threading import Lock

from tasks import stopping
from tasks.errors import SourceUnavailable
from tasks.pace import Lease

HANDFUL_S = 30.0  # of a slow budget: 25 of 3,000 calls an hour
HANDFUL = 50  # of others, at least
HURRY_S = 2.5  # of a fast budget, so that leasing costs nothing beside what is leased
CAPACITY = 3  # handfuls that may be leased at once after a rest
KEEP_S = 10.0  # a handful is good for so long at least

_PROVIDING = Lock()
_UNUSUAL = re.compile(r"[^\w.:\[\]-]")  # in the name of a host; some of it Prefect takes in no name
_LOCKED = 423  # no slots now


def handful(per_s: float) -> int:
    """Turns that are leased at a time: few of a small budget, many of a large one."""
    return max(1, round(min(max(HANDFUL, HURRY_S * per_s), HANDFUL_S * per_s)))


def lease(name: str, per_s: float) -> Lease | None:
    """Turns of the budget ``name`` of ``per_s`` a second, as soon as there are some; None if no flow runs.

    Raises SourceUnavailable if the Prefect server, which keeps the budget, does not grant any, and Interrupted.
    """
    if "prefect" not in sys.modules:  # then no flow runs; the stand-in site need not load it
        return None
    import httpx
    from prefect.context import FlowRunContext, TaskRunContext

    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return None
    name, tokens = named(name), handful(per_s)
    try:
        with _PROVIDING:
            _provide(name, CAPACITY * tokens, per_s)
        _occupy(name, tokens)
    except (httpx.HTTPError, LookupError) as error:
        _provide.cache_clear()  # somebody may have deleted the limit
        raise SourceUnavailable(
            f"the Prefect server, which keeps the budget {name!r}, grants nothing ({type(error).__name__}): see that "
            "it runs, then run again"
        ) from error
    return Lease(tokens, max(KEEP_S, tokens / per_s))


def named(name: str) -> str:
    """``name`` as Prefect takes it: what is unusual in a host is written as its code, ``~26~`` for ``&``."""
    return _UNUSUAL.sub(lambda found: f"~{ord(found[0]):x}~", name)


def _occupy(name: str, slots: int) -> None:
    """Wait until the limit ``name`` gives ``slots``. Raises Interrupted, httpx.HTTPError, and LookupError without it.

    Prefect's own ``rate_limit`` waits in a thread that nobody can tell to stop.
    """
    import httpx
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while True:
            stopping.check()
            try:
                granted = client.increment_concurrency_slots([name], slots, "rate_limit").json()
                break
            except httpx.HTTPStatusError as error:
                if error.response.status_code != _LOCKED:
                    raise
                stopping.sleep(float(error.response.headers["Retry-After"]))
    if not granted:
        raise LookupError(f"no limit {name!r}")


@cache
def _provide(name: str, slots: int, per_s: float) -> None:
    """See to it that the limit is there as the settings want it; once in a process."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # another process was faster
        client.upsert_global_concurrency_limit_by_name(name, limit=slots, slot_decay_per_second=per_s)
