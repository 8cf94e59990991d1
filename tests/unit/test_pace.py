"""How fast a host is asked, by one process and by all that share a budget, and when it is no longer asked."""

import pytest

from storage.pauses import Pause
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


def test_a_host_that_asks_for_pauses_only_is_given_up_for_a_while() -> None:
    """After a few minutes of them nobody waits any more, in no process; one good answer between, and all do. When the
    while is over one complaint is enough.
    """
    (of, other), clock, _ = sharing(2)
    for count in range(2 * pace.REFUSALS - 2):
        assert of.take(120)
        if count == pace.REFUSALS - 1:
            of.recover()
        of.pause(20)
        assert of.paused_s == 20
        clock.sleep(20)
    of.pause(20)
    assert (of.paused_s, other.paused_s) == (pace.CLOSED_S, pace.CLOSED_S)
    assert not of.take(120)
    assert not other.take(120)
    clock.sleep(pace.CLOSED_S)
    assert of.take(120)
    of.pause(20)
    assert of.paused_s == pace.CLOSED_S > Limits().pause_max_s


def test_a_host_is_not_given_up_for_a_bad_minute() -> None:
    """However often it complains: many threads hit one limit at once, and short pauses are over soon."""
    of, clock = bucket(8, 1)
    for _ in range(100):
        of.pause(1)
        clock.sleep(1)
    assert of.paused_s == 0
    for _ in range(1000):
        of.pause(100)
    assert of.paused_s == 100


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


class Notices:
    """What processes tell each other, without a file."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.looks = clock, 0
        self.pauses: list[tuple[float, float]] = []  # when each ends, and its share

    def reader(self) -> "Reader":
        return Reader(self)


class Reader:
    """One process's view of it, which is all that a bucket asks of a PauseFile."""

    def __init__(self, notices: Notices) -> None:
        self._notices, self._heard = notices, 0

    def tell(self, pause: Pause) -> None:
        self._notices.pauses.append((self._notices.clock() + pause.seconds, pause.share))

    def news(self) -> Pause | None:
        self._notices.looks += 1
        unheard, self._heard = self._notices.pauses[self._heard :], len(self._notices.pauses)
        return Pause(unheard[-1][0] - self._notices.clock(), unheard[-1][1]) if unheard else None


def sharing(count: int, per_s: float = 8, burst: int = 1) -> tuple[list[TokenBucket], Clock, Notices]:
    """Buckets of processes that tell each other of pauses."""
    clock = Clock()
    notices = Notices(clock)
    return [TokenBucket(per_s, burst, clock, clock.sleep, told=notices.reader()) for _ in range(count)], clock, notices


def test_a_pause_that_one_process_is_told_of_is_one_of_all() -> None:
    """The others take no turn before its end, then turns at half the rate, and are as fast again after good answers."""
    (one, other), clock, _ = sharing(2, per_s=2, burst=3)
    assert other.take()
    one.pause(60)
    clock.sleep(pace.LOOK_EVERY_S)
    assert turns(other, clock, 3) == [59, 60, 61]
    assert (one.per_s, other.per_s) == (1, 1)
    for _ in range(50):
        other.recover()
    assert other.per_s == 2


def test_whoever_waits_for_a_turn_hears_of_a_pause() -> None:
    """Within a second; one that is too long to wait for ends the wait."""
    (one, other), clock, _ = sharing(2, per_s=1 / 20)
    other.take()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now_s == 1005:
            one.pause(3600)

    other._sleep = sleep
    assert not other.take(120)
    assert 1005 <= clock.now_s <= 1005 + pace.LOOK_EVERY_S


def test_many_processes_that_hit_one_limit_slow_the_host_down_once() -> None:
    """Each halves its rate, and the others' word does not halve it again; the next limit does."""
    buckets, clock, _ = sharing(4)
    for of in buckets:
        of.pause(5)
    clock.sleep(6)
    assert [of.take() and of.per_s for of in buckets] == [4, 4, 4, 4]
    clock.sleep(6)
    buckets[3].pause(5)
    clock.sleep(1)
    assert [of.paused_s > 0 and of.per_s for of in buckets] == [2, 2, 2, 2]


def test_others_are_looked_for_once_a_second() -> None:
    """However many turns are taken."""
    (of,), clock, notices = sharing(1, per_s=100)
    turns(of, clock, 501)
    assert 5 <= notices.looks <= 6


def test_a_slowed_host_is_asked_less_by_all_together() -> None:
    """A handful of the common budget is as many turns fewer as the rate is lower: two at half the rate would use it up
    between them.
    """
    clock = Clock()
    of, asked = leased(clock, 8, 8, 8)
    turns(of, clock, 8)
    of.pause(5)
    turns(of, clock, 8)
    assert asked == [8, 8, 8]


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
