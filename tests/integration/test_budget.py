"""One budget over several processes, under a real Prefect server, against a stand-in site that counts the calls."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from storage.settings import child_environment
from tasks import budget
from tasks.budget import CAPACITY, handful, lease, named
from tasks.errors import Interrupted, SourceUnavailable
from tasks.sources.standin import Catalogue, StandIn
from tasks.stopping import STOPPING

PER_S = 10.0
HANDFUL = 5
SECONDS = 6.0
CHILD = """
import os, sys, time
from pathlib import Path
from prefect import flow
from tasks import budget, web

url, per_s, seconds, meeting = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
web.LIMITS = web.Limits(api_per_s=per_s, api_burst=1000)
budget.HANDFUL_S = budget.KEEP_S = 0.5

@flow
def search():
    (meeting / str(os.getpid())).touch()
    while len(list(meeting.iterdir())) < 2:
        time.sleep(0.01)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        web.client().get(url, kind="api", hosts=frozenset({url.split("/")[2]}))

search()
"""


@pytest.mark.usefixtures("prefect_server")
def test_two_processes_share_one_budget(tmp_path: Path) -> None:
    """Two workers that each would use up the budget make no more calls together than it has, nor much fewer."""
    with StandIn(Catalogue()) as site:
        arguments = (f"{site.api_url}?method=flickr.test.echo", str(PER_S), str(SECONDS), str(tmp_path))
        environment = child_environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))
        children = [subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=environment) for _ in range(2)]
        while not site.stats()["calls_total"] and any(child.poll() is None for child in children):
            time.sleep(0.005)
        first = time.monotonic()
        while site.stats()["calls_total"] and any(child.poll() is None for child in children):
            last, calls = time.monotonic(), site.stats()["calls_total"]
            time.sleep(0.005)
        assert [child.wait(60) for child in children] == [0, 0]
    assert handful(PER_S) != HANDFUL  # the children's is smaller, so that seconds tell what hours would
    assert PER_S * SECONDS / 2 < calls <= PER_S * (last - first) + (CAPACITY + 1) * HANDFUL


@pytest.mark.usefixtures("prefect_server")
def test_a_limit_is_made_as_the_settings_want_it() -> None:
    """The limit stands in the server's list with the budget's rate, where a person sees it and may change it."""

    @flow
    def ask() -> object:
        return lease("darkroom-api-example", 3000 / 3600)

    leased = ask()
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("darkroom-api-example")
    assert leased == budget.Lease(25, 30.0)
    assert (limit.limit, limit.active_slots, round(limit.slot_decay_per_second * 3600)) == (75, 25, 3000)


@pytest.mark.usefixtures("prefect_server")
def test_a_limit_that_somebody_deleted_is_made_anew() -> None:
    """The task that misses it fails for a moment, and its next try finds a limit again."""

    @flow
    def ask() -> object:
        return lease("darkroom-api-deleted", 1.0)

    ask()
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name("darkroom-api-deleted")
    with pytest.raises(SourceUnavailable, match="darkroom-api-deleted"):
        ask()
    assert ask() == budget.Lease(30, 30.0)


@pytest.mark.usefixtures("prefect_server")
def test_whoever_waits_for_a_budget_may_give_up() -> None:
    """Others have leased all there is of a small one, which is said for minutes on end: Ctrl-C ends the wait."""

    @flow
    def ask() -> object:
        for _ in range(CAPACITY):
            lease("darkroom-api-busy", 0.01)
        threading.Timer(0.3, STOPPING.set).start()
        return lease("darkroom-api-busy", 0.01)

    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            ask()
    finally:
        STOPPING.clear()
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("prefect_server")
def test_a_host_of_any_spelling_has_a_budget() -> None:
    """Prefect takes few characters in a name, a table any; two hosts never get one name."""

    @flow
    def ask() -> object:
        return lease("darkroom-image-a&b%<c>.example", 1.0)

    assert ask() == budget.Lease(30, 30.0)
    assert named("darkroom-image-a&b.example") == "darkroom-image-a~26~b.example"
    assert named("darkroom-image-[::1]:8080") == "darkroom-image-[::1]:8080"
    assert named("a~26~b") != named("a&b")


def test_without_a_flow_nobody_shares() -> None:
    """A script, or a unit test, asks no server."""
    assert lease("darkroom-api-example", 1.0) is None


@pytest.mark.parametrize(
    ("per_hour", "tokens"), [(1, 1), (100, 1), (600, 5), (3000, 25), (6000, 50), (72_000, 50), (3.6e8, 250_000)]
)
def test_a_handful_fits_its_budget(per_hour: float, tokens: int) -> None:
    """Few turns of a small budget, which would be lost; many of a large one, so that leasing holds nobody up."""
    assert handful(per_hour / 3600) == tokens


def test_no_hour_sees_more_than_its_budget_and_a_hundred() -> None:
    """The worst case of the default: all that may be leased at once, and a handful that was leased just before."""
    assert 3000 + (CAPACITY + 1) * handful(3000 / 3600) == 3100
