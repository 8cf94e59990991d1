"""What goes back over the wire, and the counters that decide how much may."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """A response. ``delivery``: whole, chunked, or broken in a way of ``faults``, which may take ``seconds``."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delivery: str = "whole"
    seconds: float = 0.0


def html_answer(status: int, text: str, retry_after_s: int | None = None) -> Answer:
    """A short page, as proxies and limiters send it."""
    headers = {"Content-Type": "text/html"}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return Answer(status, f"<html><body><h1>{status}</h1><p>{text}</p></body></html>".encode(), headers)


class RollingCount:
    """How many calls were let through during the last ``window_s`` seconds; never more than ``limit``."""

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._window_s, self._clock = limit, window_s, clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque()
        self.refused = 0

    def admit(self) -> bool:
        """Count one call, unless the window is full."""
        with self._lock:
            self._forget()
            if len(self._times) >= self._limit:
                self.refused += 1
                return False
            self._times.append(self._clock())
            return True

    def current(self) -> int:
        """Calls in the window that ends now."""
        with self._lock:
            self._forget()
            return len(self._times)

    def _forget(self) -> None:
        oldest = self._clock() - self._window_s
        while self._times and self._times[0] <= oldest:
            self._times.popleft()
