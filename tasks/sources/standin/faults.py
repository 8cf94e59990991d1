"""Scripted faults: what goes wrong on which requests, decided by a seed and by what is asked, never by timing.

A fault is drawn per request from (seed, identity of the request, how often it was asked before): the same request fails
in the same way in every run, and a retry draws again.
"""

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tasks.sources.standin.defects import BYTES

BROKEN_DELIVERIES = ("stall", "reset")
HOSTILE = ("endless", "redirect")
CHANGES = ("deletion", "upload")  # behind a sound reply: its first photo is deleted, or one is uploaded before it
API_KINDS = (  # and code_<n>, http_<status>
    "half_body", "html", "trailing_comma", *HOSTILE, *BROKEN_DELIVERIES, *CHANGES,
)  # fmt: skip
LENGTHS = {"length_huge": 1e9, "length_long": 2.0, "length_short": 0.5}  # Content-Length, in bodies as long as this
IMAGE_KINDS = (
    *BYTES, *HOSTILE, *LENGTHS, *BROKEN_DELIVERIES, "noimageai", "truncated_stream", "slow_drip",
    "redirect_unavailable", "gzip_bomb", "odd_headers",
)  # fmt: skip
NUMBERED = {"api": ("code", "http"), "image": ("http",)}


@dataclass(frozen=True)
class Fault:
    """One rule of the script.

    where: ``api`` or ``image``. kind: one of API_KINDS or IMAGE_KINDS, ``http_<status>``, and on the API ``code_<n>``.
    rate: share of the requests it hits. times: how often at most, None for ever. match: only requests with
    this in their method, arguments or path. retry_after_s: sent as Retry-After. seconds: how long a stall or a drip
    lasts, and an endless body at most. location: where a redirect leads.
    """

    where: str
    kind: str
    rate: float = 1.0
    seed: int = 0
    times: int | None = None
    match: str = ""
    retry_after_s: int | None = None
    seconds: float = 30.0
    location: str = ""

    def __post_init__(self) -> None:
        if self.where not in NUMBERED:
            raise ValueError(f"fault where={self.where!r}: expected 'api' or 'image'")
        family, _, number = self.kind.partition("_")
        known = API_KINDS if self.where == "api" else IMAGE_KINDS
        if self.kind not in known and not (family in NUMBERED[self.where] and number.isdigit()):
            raise ValueError(f"fault kind={self.kind!r}: expected one of {', '.join(known)} or a number after _")

    @property
    def number(self) -> int:
        """The status of ``http_<status>``, the code of ``code_<n>``."""
        return int(self.kind.rpartition("_")[2])


class FaultScript:
    """The rules in force and what they did."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = list(faults)
        self._drawn: Counter[tuple[Fault, str]] = Counter()
        self._hits: Counter[Fault] = Counter()  # of the rules in force
        self._struck: Counter[str] = Counter()  # since the site runs

    def add(self, script: list[dict[str, Any]]) -> None:
        """Add rules given as JSON objects. Raises ValueError or TypeError for an unknown kind or field."""
        faults = [Fault(**rule) for rule in script]
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """Let everything go right from now on."""
        with self._lock:
            self._faults.clear()
            self._drawn.clear()
            self._hits.clear()

    def draw(self, where: str, name: str, identity: str) -> Fault | None:
        """The fault of this request: the first rule that matches ``name`` and whose coin falls for ``identity``."""
        with self._lock:
            for fault in self._faults:
                if fault.where == where and fault.match in name and self._strikes(fault, identity):
                    self._hits[fault] += 1
                    self._struck[f"{where}.{fault.kind}"] += 1
                    return fault
        return None

    def _strikes(self, fault: Fault, identity: str) -> bool:
        """Whether the coin falls, and the rule is not used up."""
        if fault.times is not None and self._hits[fault] >= fault.times:
            return False
        self._drawn[fault, identity] += 1
        return _coin(fault.seed, fault.kind, identity, self._drawn[fault, identity]) < fault.rate

    def counts(self) -> dict[str, int]:
        """How often each ``where.kind`` struck."""
        with self._lock:
            return dict(self._struck)


def _coin(*identity: object) -> float:
    """A number in [0, 1) that follows from ``identity``, and says nothing of that of the next draw, as a CRC would."""
    digest = hashlib.sha256("/".join(map(str, identity)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
