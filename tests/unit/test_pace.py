"""How fast a host is asked, by one process and by all that share a budget, and when it is no longer asked."""

import pytest

from tasks import pace
from tasks.pace import Breaker, Lease, TokenBucket
from tasks.web import Limits


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def bucket(per_s: float, burst: int) -> tuple[TokenBucket, Clock]:
    clock = Clock()
    return TokenBucket(per_s, burst, clock, clock.sleep), clock


def turns(of: TokenBucket, clock: Clock, count: int) -> list[float]:
    """Seconds, from now, at which ``count`` turns are given."""
    start, given = clock.now_s, []
    for _ in range(count):
        of.take()
        given.append(round(clock.now_s - start, 6))
    return given


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    """Three turns are free, the next ones come every half second."""
    assert turns(*bucket(2, 3), 6) == [0, 0, 0, 0.5, 1.0, 1.5]


def test_rest_fills_a_bucket_to_its_burst_and_no_further() -> None:
    """A day without requests does not save up more than one burst."""
    of, clock = bucket(2, 3)
    turns(of, clock, 3)
    clock.sleep(86400)
    assert turns(of, clock, 5) == [0, 0, 0, 0.5, 1.0]


def test_an_hour_never_sees_more_than_the_rate_and_one_burst() -> None:
    """With the figures for Flickr's API an hour stays below its 3,600 calls."""
    per_s, burst = Limits().pace("api", "api.flickr.com")
    given = turns(*bucket(per_s, burst), 4000)
    assert sum(turn < 3600 for turn in given) <= 3000 + burst + 1 < 3600


def test_a_small_budget_has_a_small_burst() -> None:
    """Whoever allows ten calls an hour does not see sixty at once."""
    assert Limits(api_per_s=10 / 3600).pace("api", "api.flickr.com") == (10 / 3600, 1)


def test_a_host_without_a_published_limit_is_asked_slowly() -> None:
    """500px: one call in two seconds, whatever the budget."""
    assert Limits(api_per_s=100).pace("api", "api-neo.500px.com") == (0.5, 1)
    assert Limits(api_per_s=100, api_burst=7).pace("api", "127.0.0.1") == (100, 7)


def test_a_pause_stops_everybody_and_halves_the_rate() -> None:
    """After a 429 nobody gets a turn for the pause, no burst follows it, and turns come at half the rate."""
    of, clock = bucket(2, 3)
    of.pause(60)
    assert of.paused_s == 60
    assert turns(of, clock, 3) == [60, 61, 62]


@pytest.mark.parametrize(
    ("pause_s", "is_given", "ends_s"), [(10, True, 1020), (120, True, 1121), (121, False, 1001), (86400, False, 1001)]
)
def test_a_pause_that_begins_during_a_wait(pause_s: float, is_given: bool, ends_s: float) -> None:
    """A thread that sleeps towards its turn does not slip through when the host asks for a pause meanwhile: it waits
    for the end of a short one, and gives up within a second of the beginning of one that is too long.
    """
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now_s == 1001.0:
            of.pause(pause_s)

    of = TokenBucket(1 / 20, 1, clock, sleep)
    assert of.take(120)
    assert of.take(120) == is_given
    assert clock.now_s == ends_s


def test_whoever_does_not_wait_takes_no_turn() -> None:
    """A thousand that find a pause too long do not delay those that come after it."""
    of, clock = bucket(2, 1)
    of.pause(60)
    assert not any(of.take(59) for _ in range(1000))
    assert clock.now_s == 1000
    assert turns(of, clock, 2) == [60, 61]


def test_many_threads_that_hit_one_limit_slow_the_host_down_once() -> None:
    """Eight 429s in the same moment halve the rate once, and good answers bring it back."""
    of, _ = bucket(8, 1)
    for _ in range(8):
        of.pause(5)
    assert of.per_s == 4
    for _ in range(100):
        of.recover()
    assert of.per_s == 8


def test_the_rate_never_falls_to_nothing() -> None:
    """However often a host complains, the next turn comes within its lifetime."""
    of, clock = bucket(64, 1)
    for _ in range(50):
        of.pause(1)
        clock.sleep(2)
    assert of.per_s == 1


def leased(clock: Clock, *handfuls: int, seconds: float = 100.0, wait_s: float = 0.0) -> tuple[TokenBucket, list[int]]:
    """A bucket with leases of so many turns, each after a wait; the list says which were asked for."""
    asked: list[int] = []

    def lease() -> Lease:
        clock.sleep(wait_s)
        asked.append(handfuls[len(asked)])
        return Lease(asked[-1], seconds)

    return TokenBucket(1000, 1000, clock, clock.sleep, lease), asked


def test_each_turn_is_one_of_a_lease() -> None:
    """Five turns of handfuls of two take three leases, and the process waits for each."""
    clock = Clock()
    of, asked = leased(clock, 2, 2, 2, wait_s=10)
    assert [round(turn) for turn in turns(of, clock, 5)] == [10, 10, 20, 20, 30]
    assert asked == [2, 2, 2]


def test_leased_turns_do_not_keep() -> None:
    """What was leased and not taken in time is lost, so that no hour sees what another one saved."""
    clock = Clock()
    of, asked = leased(clock, 50, 50, seconds=60)
    turns(of, clock, 10)
    clock.sleep(61)
    turns(of, clock, 40)
    assert asked == [50, 50]


def breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(clock), clock


def test_a_circuit_opens_after_so_many_failures_in_a_row() -> None:
    """One answer between them, and the count begins anew."""
    of, _ = breaker()
    for _ in range(pace.FAILURES - 1):
        of.failed()
    of.answered()
    for _ in range(pace.FAILURES - 1):
        of.failed()
    assert of.admits() == "go"
    of.failed()
    assert of.admits() == "stop"


def test_an_open_circuit_lets_one_try_and_stays_open_longer_each_time() -> None:
    """2 s, 4 s, 8 s ... up to the bound; one probe each, for which the others wait; an answer closes it for all."""
    of, clock = breaker()
    for _ in range(pace.FAILURES):
        of.failed()
    for open_s in (2, 4, 8, 16, 30, 30):
        clock.sleep(open_s - 0.1)
        assert of.admits() == "stop"
        clock.sleep(0.1)
        assert (of.admits(), of.admits()) == ("go", "wait")
        of.failed()
    clock.sleep(30)
    assert of.admits() == "go"
    of.answered()
    assert {of.admits() for _ in range(20)} == {"go"}


def test_stragglers_do_not_keep_a_circuit_open() -> None:
    """Requests that were under way when it opened fail too, and make the wait no longer."""
    of, clock = breaker()
    for _ in range(pace.FAILURES + 16):
        of.failed()
    clock.sleep(pace.OPEN_S)
    assert of.admits() == "go"


def test_a_probe_that_never_reports_is_replaced() -> None:
    """A thread that dies with the probe does not close the host for ever."""
    of, clock = breaker()
    for _ in range(pace.FAILURES):
        of.failed()
    clock.sleep(pace.OPEN_S)
    assert of.admits() == "go"
    clock.sleep(pace.OPEN_S)
    assert of.admits() == "go"
