"""What one process tells others of a host that wants to be left alone, and what is not believed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.layout import Layout
from storage.pauses import LONGEST_S, RECOVERED_S, SKEW_S, Pause, PauseFile, read

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Wall:
    """A wall clock that anybody may set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def set(self, seconds: float) -> None:
        self.now = NOON + timedelta(seconds=seconds)


@pytest.fixture
def wall() -> Wall:
    return Wall()


def pause_file(where: Layout, wall: Wall) -> PauseFile:
    """One process's view of the same budget."""
    return PauseFile(where.pauses, "darkroom-image-example.org", wall)


def test_a_pause_is_news_once(where: Layout, wall: Wall) -> None:
    """With the seconds that are left of it; the next one is news again."""
    one, other = pause_file(where, wall), pause_file(where, wall)
    assert other.news() is None
    one.tell(Pause(30.0, 0.5))
    wall.set(10)
    assert (other.news(), other.news()) == (Pause(20.0, 0.5), None)
    one.tell(Pause(60.0, 0.25))
    assert other.news() == Pause(60.0, 0.25)


def test_budgets_do_not_hear_of_each_other(where: Layout, wall: Wall) -> None:
    """A host's API may pause while its pictures do not. What a host is called is no path."""
    names = ["darkroom-api-example.org", "darkroom-image-example.org", f"darkroom-image-../{'x' * 300}:8080"]
    told = [PauseFile(where.pauses, name, wall) for name in names]
    for seconds, each in enumerate(told, start=1):
        each.tell(Pause(seconds, 0.5))
    assert [each.news() for each in told] == [Pause(1.0, 0.5), Pause(2.0, 0.5), Pause(3.0, 0.5)]
    assert sorted(path.parent for path in where.root.rglob("*.json")) == [where.pauses] * 3


def test_a_short_pause_does_not_end_a_long_one(where: Layout, wall: Wall) -> None:
    """Whoever is told by the host to wait for a second has not heard of the hour that another was told."""
    one, other = pause_file(where, wall), pause_file(where, wall)
    one.tell(Pause(3600.0, 0.5))
    wall.set(600)
    other.tell(Pause(1.0, 0.25))
    assert pause_file(where, wall).news() == Pause(3000.0, 0.25)


def test_the_rate_is_remembered_for_a_while_after_the_pause(where: Layout, wall: Wall) -> None:
    """Whoever begins then begins slowly; later nobody does."""
    pause_file(where, wall).tell(Pause(30.0, 0.5))
    wall.set(30 + RECOVERED_S - 1)
    assert pause_file(where, wall).news() == Pause(1 - RECOVERED_S, 0.5)
    wall.set(30 + RECOVERED_S)
    assert pause_file(where, wall).news() is None


@pytest.mark.parametrize("wanted_s", [LONGEST_S + 1, 1e15, float("inf")])
def test_no_pause_is_longer_than_a_day(where: Layout, wall: Wall, wanted_s: float) -> None:
    """Whoever asks for more, and whatever another wrote."""
    pause_file(where, wall).tell(Pause(wanted_s, 0.5))
    assert pause_file(where, wall).news() == Pause(LONGEST_S, 0.5)
    (file,) = where.pauses.iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ends_at": "9999-01-01T00:00:00+00:00"}))
    wall.set(LONGEST_S - 5)
    assert pause_file(where, wall).news() == Pause(5.0, 0.5)


def test_a_clock_that_was_wrong_holds_nobody_up(where: Layout, wall: Wall) -> None:
    """What was written a year ahead is not believed once the clock is right, and the next pause takes its place; clocks
    that differ by seconds understand each other.
    """
    wall.set(365 * 86400)
    pause_file(where, wall).tell(Pause(60.0, 0.5))
    wall.set(0)
    assert pause_file(where, wall).news() is None
    pause_file(where, wall).tell(Pause(30.0, 0.25))
    assert pause_file(where, wall).news() == Pause(30.0, 0.25)
    wall.set(-SKEW_S)
    assert pause_file(where, wall).news() == Pause(30.0 + SKEW_S, 0.25)
    wall.set(-SKEW_S - 1)
    assert pause_file(where, wall).news() is None


SAID = {"asked_at": NOON.isoformat(), "ends_at": (NOON + timedelta(seconds=30)).isoformat(), "share": 0.5}
DAMAGED = [
    b"", b"{", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000,
    *(json.dumps(SAID | wrong).encode() for wrong in (
        {"share": 0}, {"share": -1}, {"share": 2}, {"share": float("nan")}, {"share": None}, {"share": "x"},
        {"ends_at": "soon"}, {"ends_at": 5}, {"asked_at": "2026-11-22T12:00:00"}, {"asked_at": None},
    )),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_as_good_as_none(where: Layout, wall: Wall, text: bytes) -> None:
    """Nothing is raised, and the next pause takes its place."""
    pause_file(where, wall).tell(Pause(30.0, 0.5))
    (file,) = where.pauses.iterdir()
    file.write_bytes(json.dumps(SAID).encode())
    assert read(file, NOON) == Pause(30.0, 0.5)
    file.write_bytes(text)
    assert pause_file(where, wall).news() is None
    pause_file(where, wall).tell(Pause(10.0, 0.5))
    assert pause_file(where, wall).news() == Pause(10.0, 0.5)


def test_a_folder_that_cannot_be_written_costs_a_line(
    tmp_path: Path, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told, and nothing is raised."""
    (tmp_path / "pauses").write_bytes(b"a file where the folder should be")
    PauseFile(tmp_path / "pauses", "darkroom-api-example.org", wall).tell(Pause(30.0, 0.5))
    assert PauseFile(tmp_path / "pauses", "darkroom-api-example.org", wall).news() is None
    assert "not told that darkroom-api-example.org pauses for 30 s" in caplog.text
