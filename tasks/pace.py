"""How fast a host may be asked, and whether it is worth asking at all.

Source: GCRA, ITU-T I.371 annex A (the token bucket).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from storage.pauses import Pause, PauseFile

MIN_INTERVAL_S = {"api-neo.500px.com": 2.0, "500px.com": 2.0}  # no limit is published: one call in so many seconds
FAILURES = 8  # in a row, after which a host counts as gone
OPEN_S = 2.0  # that it is left alone then, doubled each time that it is gone still
OPEN_MAX_S = 30.0  # below the last pause of a task that is tried again: tasks/caching.py
LOOK_EVERY_S = 1.0  # of whoever waits for a turn: whether a pause has begun that is too long to wait for
SLOWEST = 64  # the part of its full rate that a host which complains is asked at still: a file in 3 s
REFUSALS = 8  # pauses in a row, with no good answer between them, and
PATIENCE_S = 120.0  # since the first of them, after both of which
CLOSED_S = 900.0  # a host is left alone for so long: more than anybody waits for, so that runs end

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Lease:
    """Turns that a budget over all workers grants this process; those not taken within ``seconds`` are lost."""

    tokens: int
    seconds: float


class TokenBucket:
    """``burst`` turns at once, then ``per_s`` a second; slower after ``pause``, and faster again with each ``recover``.

    Any number of threads may share one. ``lease`` gets turns of a budget that other processes share, and blocks until
    there are some; None: nobody does. ``told`` is where processes tell each other of pauses.
    """

    def __init__(
        self, per_s: float, burst: int, clock: Clock = time.monotonic, sleep: Sleep = time.sleep,
        lease: Callable[[], Lease | None] = lambda: None, told: PauseFile | None = None,
    ) -> None:  # fmt: skip
        self._full_per_s = self.per_s = per_s
        self._burst, self._clock, self._sleep, self._lock = burst, clock, sleep, Lock()
        self._next = float("-inf")  # when the next turn would be due if there were no burst
        self._paused_until = float("-inf")
        self._refusals, self._refused_since = 0, float("-inf")
        self._lease, self._leasing = lease, Lock()
        self._leased, self._leased_until = 0, float("-inf")
        self._told, self._look_at = told, float("-inf")

    def take(self, most_s: float = math.inf) -> bool:
        """Wait for a turn, and for the end of a pause that begins meanwhile; False, soon, if it is over ``most_s``."""
        if not self._wait(most_s):
            return False
        self._draw()
        while self.paused_s > 0:
            if not self._wait(most_s):
                return False
        return True

    @property
    def paused_s(self) -> float:
        """Seconds that the host still wants to be left alone, as far as any process knows."""
        self._listen()
        return max(0.0, self._paused_until - self._clock())

    def pause(self, seconds: float) -> None:
        """Give nobody a turn for ``seconds``, and halve the rate unless a pause has just done so. Others are told.

        A host that has asked for nothing but pauses, often and for long, gets one that nobody waits for.
        """
        with self._lock:
            now = self._clock()
            if now >= self._paused_until:
                self.per_s = max(self.per_s / 2, self._full_per_s / SLOWEST)
                self._refused_since = self._refused_since if self._refusals else now
                self._refusals += 1
            if self._refusals >= REFUSALS and now - self._refused_since >= PATIENCE_S:
                seconds = max(seconds, CLOSED_S)
            is_news = now + seconds > self._paused_until
            self._pause_until(now + seconds)
            pause = Pause(seconds, self.per_s / self._full_per_s)
        if self._told is not None and is_news:
            self._told.tell(pause)

    def recover(self) -> None:
        """Speed up a little, to the full rate at most: the host has given an answer."""
        with self._lock:
            self._refusals = 0
            self.per_s = min(self._full_per_s, self.per_s + self._full_per_s / 100)

    def _listen(self) -> None:
        """Pause, and slow down, as another process has told since this was last asked, at most every LOOK_EVERY_S."""
        with self._lock:
            if self._told is None or self._clock() < self._look_at:
                return
            self._look_at = self._clock() + LOOK_EVERY_S
        if (pause := self._told.news()) is not None:
            with self._lock:
                self.per_s = min(self.per_s, self._full_per_s * max(pause.share, 1 / SLOWEST))
                self._pause_until(self._clock() + pause.seconds)

    def _pause_until(self, end: float) -> None:
        """Give no turn before ``end``; the lock is held."""
        self._paused_until = max(self._paused_until, end)
        self._next = max(self._next, self._paused_until)

    def _wait(self, most_s: float) -> bool:
        """Wait for the next free turn; False as soon as a pause of more than ``most_s`` stands before it."""
        wait_s = self._reserve() if self.paused_s <= most_s else 0.0
        while wait_s > 0 and self.paused_s <= most_s:
            self._sleep(min(wait_s, LOOK_EVERY_S))
            wait_s -= LOOK_EVERY_S
        return self.paused_s <= most_s

    def _reserve(self) -> float:
        """Take the next free turn; seconds until it."""
        with self._lock:
            now = self._clock()
            spare_s = (self._burst - 1) / self.per_s if now >= self._paused_until else 0.0
            turn = max(self._next, now - spare_s)
            self._next = turn + 1 / self.per_s
            return max(0.0, turn - now)

    def _draw(self) -> None:
        """Take one of the leased turns, after leasing more if they are used up or too old."""
        with self._leasing:
            if self._leased == 0 or self._clock() >= self._leased_until:
                lease = self._lease()
                if lease is None:
                    return
                share = self.per_s / self._full_per_s  # all who share the budget are slowed down, not each alone
                self._leased, self._leased_until = max(1, round(lease.tokens * share)), self._clock() + lease.seconds
            self._leased -= 1


class Breaker:
    """Whether a host is to be asked: not for a growing while after FAILURES requests in a row without an answer.

    When the while is over one request may try, for which the others wait; if it is answered, all may.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._close()

    def _close(self) -> None:
        self._failures, self._open_s, self._is_probed = 0, 0.0, False
        self._until = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether the host counts as gone."""
        return self._open_s > 0

    def admits(self) -> Literal["go", "wait", "stop"]:
        """Whether the host may be asked now; wait: somebody is trying."""
        with self._lock:
            if not self.is_open:
                return "go"
            if self._clock() < self._until:
                return "wait" if self._is_probed else "stop"
            self._until, self._is_probed = self._clock() + self._open_s, True
            return "go"

    def answered(self) -> None:
        """The host is there."""
        with self._lock:
            self._close()

    def failed(self) -> None:
        """The host did not answer. Those that were under way when the circuit opened do not count against it again."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES and (self._is_probed or not self.is_open):
                self._open_s = min(OPEN_MAX_S, self._open_s * 2 or OPEN_S)
                self._until, self._is_probed = self._clock() + self._open_s, False
