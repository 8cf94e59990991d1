"""Whether somebody gave up waiting, and how to wait so that this ends the wait."""

import threading

from tasks.errors import Interrupted

STOPPING = threading.Event()  # set when somebody gave up waiting: nothing is begun any more


def check() -> None:
    """Raise Interrupted if somebody gave up waiting."""
    if STOPPING.is_set():
        raise Interrupted("stopped: what was fetched is kept, and the next run fetches the rest")


def sleep(seconds: float) -> None:
    """Wait. Raises Interrupted as soon as somebody gives up waiting."""
    STOPPING.wait(seconds)
    check()
