"""Which photos are due for a look, what looks prove, and what a removal blocks."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from storage import removals
from storage.errors import ConfigError, RemovedPhoto
from storage.layout import Layout
from storage.records import KEY, MOMENT, SCHEMAS
from storage.removals import Blocked
from storage.settings import Settings
from tasks.audit import PATIENCE, Removal, doubts, due, look_at_all, most_believed, verdicts
from tasks.errors import CredentialsRejected, PermanentSourceError, SourceChanged, SourceUnavailable
from tasks.sources.base import Seen
from tasks.sources.windows import REVISIT_OLDEST, REVISITS

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY = timedelta(days=1)
FOUND = pa.schema([*KEY, ("uploaded_at", MOMENT), ("observed_at", MOMENT)])


def found(*photos: tuple[str, float | None, float]) -> pa.Table:
    """Photos by id, days since their upload and days since a search listed them."""
    rows = [
        {
            "source": "flickr",
            "photo_id": photo_id,
            "uploaded_at": None if age is None else NOW - age * DAY,
            "observed_at": NOW - seen * DAY,
        }
        for photo_id, age, seen in photos
    ]
    return pa.Table.from_pylist(rows, schema=FOUND)


def checks(*looks: tuple[str, float, str] | tuple[str, float, str, int]) -> pa.Table:
    """Looks by photo, days ago, state and the status of the file."""
    rows = [
        {
            "source": "flickr", "photo_id": photo_id, "checked_at": NOW - ago * DAY, "state": state,
            "proof": f"{state} it is", "file_status": status[0] if status else None,
        }
        for photo_id, ago, state, *status in looks
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMAS["checks"])


def ids(table: pa.Table) -> list[str]:
    return list(table["photo_id"].to_pylist())


@pytest.mark.parametrize(
    ("age", "interval"),
    [(limit - 0.01 * DAY, interval) for limit, interval in REVISITS]
    + [
        (limit, interval)
        for (limit, _), (_, interval) in zip(REVISITS, (*REVISITS[1:], (DAY, REVISIT_OLDEST)), strict=True)
    ],
)
def test_the_older_a_photo_the_rarer_it_is_looked_at(age: timedelta, interval: timedelta) -> None:
    """Every step of the ladder by which windows are listed again, from both sides."""
    photos = found(("due", age / DAY, interval / DAY), ("seen", age / DAY, interval / DAY - 0.01))
    assert ids(due(photos, checks(), NOW, None)) == ["due"]


def test_an_unknown_age_counts_from_when_it_was_found() -> None:
    """A photo without a date of upload is as old as its listing."""
    assert ids(due(found(("new", None, 2), ("newer", None, 0.5)), checks(), NOW, None)) == ["new"]


def test_a_look_puts_off_the_next_one_and_a_failed_one_does_not() -> None:
    """Only an answer counts as having seen a photo."""
    photos = found(("seen", 100, 50), ("failed", 100, 50))
    looks = checks(("seen", 1, "present"), ("failed", 1, "failed"))
    assert ids(due(photos, looks, NOW, None)) == ["failed"]


def test_suspects_come_first_and_then_who_was_not_asked_for_longest() -> None:
    """The cap falls on those that were asked about last; one that always fails does not keep others waiting."""
    photos = found(("long", 100, 60), ("longer", 100, 90), ("fails", 100, 99), ("suspect", 5000, 1), ("fresh", 100, 1))
    looks = checks(("suspect", 1.5, "gone"), ("fails", 0.5, "failed"))
    assert ids(due(photos, looks, NOW, None)) == ["suspect", "longer", "long", "fails"]
    assert ids(due(photos, looks, NOW, 2)) == ["suspect", "longer"]
    assert ids(due(photos, looks, NOW, 0)) == []
    assert set(ids(due(photos, looks, NOW, None, everything=True))) == set(ids(photos))


def test_a_suspect_is_looked_at_again_after_a_day() -> None:
    """Not before, for that would prove nothing; its age does not matter."""
    photos = found(("a", 5000, 1), ("b", 5000, 1))
    assert ids(due(photos, checks(("a", 1, "gone"), ("b", 0.99, "gone")), NOW, None)) == ["a"]


def test_what_is_dated_later_than_now_counts_as_not_made() -> None:
    """By a clock that was ahead: neither a look nor a listing puts off a look, nor clears or proves anything."""
    photos = found(("looked", 100, 50), ("listed", None, -365), ("both", 3, -365), ("fresh", 3, 0.5))
    looks = checks(("looked", -365, "present"), ("both", -365, "gone"))
    assert set(ids(due(photos, looks, NOW, None))) == {"looked", "listed", "both"}
    assert ids(due(found(("a", 3, -0.003)), checks(), NOW, None)) == [], "clocks differ a little"
    ahead = ("p", -365, "present")
    removed, suspected = verdicts(
        checks(ahead, ("p", 2, "gone", 404), ("p", 1, "gone", 404), ("p", 0, "gone", 404)), NOW
    )
    assert ([row["photo_id"] for row in removed], suspected) == (["p"], 0)
    assert verdicts(checks(("p", 0, "gone"), ("p", -1, "gone"), ("q", -1, "gone", 404)), NOW) == ([], 1)


@pytest.mark.parametrize(
    ("looks", "is_removed", "suspected"),
    [
        ([("p", 0, "gone")], False, 1),
        ([("p", 0, "gone", 404)], True, 0),
        ([("p", 0, "gone", 410)], True, 0),
        ([("p", 0, "gone", 200)], False, 1),
        ([("p", 0, "gone", 503)], False, 1),
        ([("p", 1, "gone", 200), ("p", 0, "gone", 200)], True, 0),
        ([("p", 0.99, "gone"), ("p", 0, "gone")], False, 1),
        ([("p", 2, "gone"), ("p", 1, "present"), ("p", 0, "gone")], False, 1),
        ([("p", 2, "gone"), ("p", 1, "failed"), ("p", 0, "gone")], True, 0),
        ([("p", 2, "gone", 404), ("p", 1, "present")], False, 0),
        ([("p", 2, "failed"), ("p", 1, "failed"), ("p", 0, "unknown")], False, 0),
        ([("p", 0, "present", 404)], False, 0),
        ([("p", 0, "gone"), ("p", 1, "gone")], True, 0),
        ([("p", 2, "gone", 404), ("p", 1, "doubted")], False, 1),
        ([("p", 2, "gone", 404), ("p", 1.9, "doubted"), ("p", 0, "gone", 200)], False, 1),
        ([("p", 2, "gone"), ("p", 1, "doubted"), ("p", 0, "gone", 404)], True, 0),
        ([("p", 2, "gone", 404), ("p", 1, "doubted"), ("p", 0, "present")], False, 0),
    ],
)
def test_what_proves_a_removal(looks: list[Any], is_removed: bool, suspected: int) -> None:
    """Gone twice a day apart, or once without its file; silence proves nothing, nor what was seen before a doubt; and
    whoever came back is no suspect."""
    removed, others = verdicts(checks(*looks), NOW)
    assert ([row["photo_id"] for row in removed], others) == (["p"] if is_removed else [], suspected)
    for row in removed:
        assert (row["reason"], row["removed_at"]) == ("gone", NOW)
        assert "gone it is" in row["proof"]
        assert "UTC" in row["proof"]


def test_a_doubt_counts_from_after_the_last_look_until_a_person_confirms() -> None:
    """A worker's clock may have been ahead of the one that doubts; the photo is due again a day after."""
    looks = checks(("p", 0, "gone", 404), ("q", 0, "present"), ("p", -0.002, "gone", 404))
    [row] = doubts(looks, verdicts(looks, NOW)[0], NOW)
    assert row["checked_at"] > NOW + 0.002 * DAY
    looks = pa.concat_tables([looks, pa.Table.from_pylist([row], SCHEMAS["checks"])])
    assert verdicts(looks, NOW) == ([], 1)
    assert [removal["photo_id"] for removal in verdicts(looks, NOW, allow_jump=True)[0]] == ["p"]
    photos = found(("p", 5000, 1), ("q", 5000, 1))
    assert ids(due(photos, looks, NOW + 0.99 * DAY, None)) == []
    assert ids(due(photos, looks, NOW + 1.01 * DAY, None)) == ["p"]


@pytest.mark.parametrize(("looks", "most"), [(0, 20), (400, 20), (600, 30), (10_000, 500)])
def test_an_audit_believes_a_few_or_a_small_share(looks: int, most: int) -> None:
    """Twenty photos, or five of a hundred looks."""
    assert most_believed(looks) == most


class Site:
    """A source that answers what it is told to."""

    name = "flickr"

    def __init__(self, *answers: Seen | Exception, status: int = 404) -> None:
        self.answers, self.status, self.asked = list(answers), status, 0

    def inspect(self, photo_id: str, settings: Settings) -> Seen:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, settings: Settings) -> Any:
        return lambda url: SimpleNamespace(status=self.status)


def looked(site: Any, photos: int) -> list[dict[str, Any]]:
    rows = [
        {"source": "flickr", "photo_id": str(n), "renditions": [{"label": "s", "url": "http://x/s"}]}
        for n in range(photos)
    ]
    return look_at_all(site, rows, Settings.model_construct())


def test_the_file_is_asked_for_only_where_the_site_says_gone() -> None:
    """One call a photo, and one request more for a suspect."""
    rows = looked(Site(Seen("present", "ok", licence="CC0"), Seen("gone", "code 1")), 2)
    assert [(row["state"], row.get("file_status"), row["licence"]) for row in rows] == [
        ("present", None, "CC0"), ("gone", 404, None),
    ]  # fmt: skip
    assert looked(Site(Seen("gone", "code 1"), status=0), 1)[0]["file_status"] is None


def test_a_site_that_fails_again_and_again_is_left_alone() -> None:
    """What was seen is kept; nothing seen at all is an error; a wrong key ends it at once."""
    down = SourceUnavailable("down")
    site = Site(Seen("present", "ok"), *[down] * 9)
    assert [row["state"] for row in looked(site, 10)] == ["present", *["failed"] * 5]
    assert site.asked == 6
    with pytest.raises(SourceUnavailable):
        looked(Site(*[down] * 9), 9)
    assert [row["state"] for row in looked(Site(down, Seen("present", "ok")), 2)] == ["failed", "present"]
    with pytest.raises(CredentialsRejected):
        looked(Site(CredentialsRejected("no key")), 1)


def test_a_photo_that_the_site_refuses_is_a_look_that_failed() -> None:
    """Hidden, or oddly answered: the row says what it was, and the others are looked at; it proves nothing."""
    here = Seen("present", "ok")
    rows = looked(Site(PermanentSourceError("refused (2)"), here, SourceChanged("'photo' cannot be read"), here), 4)
    assert [row["state"] for row in rows] == ["failed", "present", "failed", "present"]
    assert [row["proof"] for row in rows[::2]] == ["refused (2)", "'photo' cannot be read"]
    refused = Site(*[PermanentSourceError("refused (2)")] * 20)
    assert [row["state"] for row in looked(refused, 20)] == ["failed"] * 20
    down, hidden = SourceUnavailable("down"), PermanentSourceError("refused (2)")
    assert len(looked(Site(*[down, hidden] * 20), 40)) == 40, "a site that answers is not down"
    with pytest.raises(CredentialsRejected):
        looked(Site(here, CredentialsRejected("no key")), 2)


def test_a_site_that_answers_every_photo_oddly_has_changed() -> None:
    """All of a batch: the audit ends and says so. A few, or all but one, are a matter of these photos."""
    odd = SourceChanged("'photo' cannot be read")
    with pytest.raises(SourceChanged, match="photo"):
        looked(Site(*[odd] * PATIENCE), PATIENCE)
    assert len(looked(Site(*[odd] * (PATIENCE - 1)), PATIENCE - 1)) == PATIENCE - 1
    assert len(looked(Site(*[odd] * PATIENCE, Seen("present", "ok")), PATIENCE + 1)) == PATIENCE + 1


def test_nulls_of_a_removal_are_wildcards() -> None:
    """A photo, all of an owner, all with these bytes; of that site, and nothing else."""
    blocked = Blocked([
        ("flickr", "1", None, None), ("flickr", None, "ann", None), (None, None, None, "ab"),
        ("flickr", "2", None, "cd"), (None, None, None, None),
    ])  # fmt: skip
    assert blocked.is_blocked("flickr", "1")
    assert blocked.is_blocked("flickr", "7", "ann")
    assert blocked.is_blocked("500px", "7", "bob", "ab")
    assert blocked.is_blocked("flickr", "2", sha256="cd")
    assert not blocked.is_blocked("flickr", "2", sha256="ef")
    assert not blocked.is_blocked("500px", "1", "ann")
    assert not blocked.is_blocked("flickr", "7")
    assert not Blocked([])
    photos: dict[str, list[str | None]] = {
        "source": ["flickr", "flickr", "500px", "500px", "flickr"], "photo_id": ["7", "8", "1", "9", "2"],
        "owner_id": ["ann", None, "ann", None, None], "sha256": [None, None, None, "ab", "cd"],
    }  # fmt: skip
    rows = pa.table({name: pa.array(values, pa.string()) for name, values in photos.items()})
    assert blocked.mask(rows).to_pylist() == [True, False, False, True, True]
    assert blocked.mask(rows.select(["source", "photo_id"])).to_pylist() == [False] * 5
    assert blocked.mask(rows.slice(0, 0)).to_pylist() == []


def removal(**values: Any) -> dict[str, Any]:
    return {"removed_at": NOW, "reason": "asked", "proof": "a letter", **values}


def kept(where: Layout) -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in removals.COLUMNS) for row in removals.read(where).to_pylist()}


def test_removals_are_added_once_and_stay(where: Layout) -> None:
    """What is known adds nothing; what was there before is still there."""
    assert removals.read(where).num_rows == 0
    assert removals.add(where, [removal(source="flickr", photo_id="1"), removal(source="flickr", photo_id="1")]) == 1
    assert removals.add(where, [removal(source="flickr", photo_id="1"), removal(sha256="ab")]) == 1
    assert removals.add(where, []) == 0
    assert kept(where) == {("flickr", "1", None, None), (None, None, None, "ab")}
    assert removals.blocked(where).is_blocked("flickr", "1")


@pytest.mark.parametrize("values", [{}, {"source": "flickr"}, {"photo_id": "1"}, {"owner_id": "a"}, {"sha256": ""}])
def test_a_removal_that_names_nothing_is_refused(where: Layout, values: dict[str, str]) -> None:
    """It would remove everything, or nobody knows what; in Python and in the form of the UI."""
    with pytest.raises(ConfigError, match="removal"):
        removals.add(where, [removal(**values)])
    with pytest.raises(ValidationError, match="removal"):
        Removal.model_validate({"words": "a letter", **values})


def test_what_holds_a_removed_photo_is_refused(where: Layout) -> None:
    """By name, with what to do; others pass."""
    rows = pa.table({"source": ["flickr"] * 2, "photo_id": ["1", "2"]})
    removals.refuse(where, rows, "the pack")
    removals.add(where, [removal(source="flickr", photo_id="2")])
    with pytest.raises(RemovedPhoto, match=r"the pack holds 1 removed photos, such as flickr/2: run audit-dataset"):
        removals.refuse(where, rows, "the pack")
    removals.refuse(where, rows.slice(0, 1), "the pack")


def words(removed: Iterable[Removal]) -> list[str]:
    return [each.row(NOW)["proof"] for each in removed]


def test_a_persons_words_are_the_proof() -> None:
    """What was asked for becomes a row of removals."""
    asked = Removal(source="flickr", owner_id="ann", words="Ann wrote on the 3rd")
    assert words([asked]) == ["Ann wrote on the 3rd"]
    assert asked.row(NOW)["owner_id"] == "ann"


def test_a_removal_is_read_as_it_was_meant() -> None:
    """Blanks around it and capital digits are no part of it; a path may have blanks within, a table's id be a URL."""
    digest = "0123456789abcdef" * 4
    assert Removal(sha256=f" {digest.upper()}\n", words="a letter").sha256 == digest
    asked = Removal(source="flickr", photo_id=" 123\n", words=" a letter ")
    assert (asked.photo_id, asked.words, asked.subject) == ("123", "a letter", "source=flickr photo_id=123")
    assert Removal(source="folder", photo_id="my cats/tom 1.jpg", words="a letter").photo_id == "my cats/tom 1.jpg"
    assert Removal(source="table", photo_id="https://h/1.jpg", owner_id="Ann Other", words="w").owner_id == "Ann Other"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sha256": "ab"}, "64 hexadecimal digits"),
        ({"sha256": "g" * 64}, "64 hexadecimal digits"),
        ({"source": "Flickr", "photo_id": "1"}, "'flickr', '500px'"),
        ({"source": "flickr", "photo_id": "1 2"}, "the id of a photo"),
        ({"source": "flickr", "photo_id": "https://www.flickr.com/photos/x/1"}, "the id of a photo"),
        ({"source": "500px", "owner_id": "https://500px.com/p/x"}, "an owner of 500px"),
        ({"source": "folder", "photo_id": "file:///a.jpg"}, "the id of a photo"),
        ({"source": "flickr", "photo_id": "  "}, "a removal names"),
    ],
)
def test_a_removal_that_can_match_nothing_is_refused(values: dict[str, str], said: str) -> None:
    """Rather than kept for ever, with nothing deleted and nobody told."""
    with pytest.raises(ValidationError, match=said):
        Removal.model_validate({"words": "a letter", **values})
