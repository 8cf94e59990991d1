"""A host's pause over all processes that share a data root, against a stand-in site that answers 429."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.layout import Layout
from storage.settings import child_environment
from tasks.sources.standin import Catalogue, Fault, StandIn
from tasks.web import Answer, Client, Limits

PAUSE_S = 3
PER_S = 50.0
SHORT = Limits(pauses=0, api_per_s=PER_S, api_burst=1)  # does not wait for a pause that it was told of
CHILD = """
import json, sys, time
from tasks import web

url, per_s = sys.argv[1], float(sys.argv[2])
web.LIMITS = web.Limits(api_per_s=per_s, api_burst=1)
client = web.client()
ask = lambda: client.get(url, kind="api", hosts=frozenset({url.split("/")[2]})).status
began, status, ended = time.time(), ask(), time.time()
(lane,) = client._lanes.values()
first = lane.bucket.per_s
again = {ask() for _ in range(50)}
print(json.dumps([began, ended, status, first, lane.bucket.per_s, sorted(again)]))
"""


def address(site: StandIn) -> str:
    return f"{site.api_url}?method=flickr.test.echo"


def ask(client: Client, site: StandIn) -> Answer:
    return client.get(address(site), kind="api", hosts=frozenset({site.url.rpartition("/")[2]}))


def paused(retry_after_s: int) -> StandIn:
    """A site that asks for a pause once, and is well afterwards."""
    return StandIn(Catalogue(), faults=[Fault("api", "http_429", times=1, retry_after_s=retry_after_s)])


def test_a_pause_that_one_process_was_asked_for_is_kept_by_another(own_root: Layout) -> None:
    """The second asks nothing before it is over, begins at half the rate, and good answers make it as fast as ever."""
    with paused(PAUSE_S) as site:
        first = Client("", SHORT, pauses=own_root.pauses)
        asked_at = time.time()
        assert ask(first, site).outcome == "rate_limited"
        command = [sys.executable, "-c", CHILD, address(site), str(PER_S)]
        said = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=60, check=True)
        began, ended, status, slow, fast, again = json.loads(said.stdout)
        assert site.stats()["calls_total"] == 1 + 1 + 50
        assert began < asked_at + PAUSE_S, "or nothing was proved"
        assert ended >= asked_at + PAUSE_S
        assert (status, again) == (200, [200])
        assert PER_S / 2 < slow < PER_S * 0.52
        assert fast == PER_S


def test_a_process_that_would_have_to_wait_too_long_says_so_at_once(where: Layout) -> None:
    """It does not ask, and knows how long the host wants to be left alone."""
    with paused(86400) as site:
        first, second = (Client("", SHORT, pauses=where.pauses) for _ in range(2))
        assert ask(first, site).outcome == "rate_limited"
        answer = ask(second, site)
        assert (answer.outcome, answer.status, answer.detail) == ("rate_limited", 429, "paused")
        assert 86300 < (answer.retry_after_s or 0) <= 86400
        assert site.stats()["calls_total"] == 1


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder / "file" / "pauses"], ids=["none", "bad"])
def test_a_client_that_can_tell_nobody_pauses_by_itself(
    tmp_path: Path, make: Callable[[Path], Path | None], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a folder, or with one that cannot be written, which is a line in the log."""
    (tmp_path / "file").write_bytes(b"")
    with paused(1) as site:
        client = Client("", Limits(api_per_s=PER_S), pauses=make(tmp_path))
        began = time.monotonic()
        assert ask(client, site).outcome == "ok"
        assert time.monotonic() - began >= 1
        assert ("other processes are not told" in caplog.text) == (make(tmp_path) is not None)
