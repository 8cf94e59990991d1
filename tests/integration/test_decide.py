"""Decisions by hand: what stands, whom they are refused for, and that the ledger keeps each of them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

import flows.decide
from storage import ledger, manifest, overrides, removals
from storage.layout import Layout
from storage.records import SCHEMAS
from storage.settings import settings
from tasks.decisions import Decided, Decision, decide, from_table
from tasks.errors import ConfigError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEPT = {"source": "flickr", "photo_id": "1"}


@pytest.fixture
def town(where: Layout) -> Layout:
    """A root whose dataset ``town`` knows the photos 1 to 5 of Flickr."""
    listed = [{"source": "flickr", "photo_id": str(n), "owner_id": "o", "observed_at": NOW} for n in range(1, 6)]
    ledger.adopt(where, "town", manifest.write_rows(where, "listings", listed))
    return where


def says(where: Layout, *decisions: tuple[str, ...], at: datetime = NOW, by: str = "Ann", **options: Any) -> Decided:
    """Decide: (photo_id, decision[, label])."""
    given = [
        Decision(photo_id=photo_id, decision=decision, label=label[0] if label else None)  # type: ignore[arg-type]
        for photo_id, decision, *label in decisions
    ]
    return decide(where, "town", given, by, at, options.get("allow_unknown", False))


def standing(where: Layout) -> dict[str, tuple[str | None, str | None]]:
    rows = overrides.decided(where, "town").to_pylist()
    return {row["photo_id"]: (row["decision"], row["relabel"]) for row in rows}


def test_the_latest_of_each_kind_counts_and_clear_takes_both_back(town: Layout) -> None:
    """Keep and reject replace each other, relabel stands beside them, clear takes back all of a photo."""
    says(town, ("1", "keep"), ("2", "reject"), ("3", "relabel", "boat"), ("3", "keep"))
    assert standing(town) == {"1": ("keep", None), "2": ("reject", None), "3": ("keep", "boat")}
    says(town, ("1", "reject"), ("3", "relabel", "ship"), ("2", "clear"), at=NOW + timedelta(hours=1))
    assert standing(town) == {"1": ("reject", None), "3": ("keep", "ship")}
    says(town, ("3", "clear"), ("2", "keep"), at=NOW + timedelta(hours=2))
    assert standing(town) == {"1": ("reject", None), "2": ("keep", None)}
    assert overrides.decided(town, "town").schema == SCHEMAS["decided"]


def test_the_ledger_keeps_who_when_and_why(town: Layout) -> None:
    """Nothing is overwritten: each decision is a row with its person, its moment and its note."""
    given = [Decision(photo_id="1", decision="keep", note=" a fine one ")]
    decide(town, "town", given, "Ann", NOW, False)
    says(town, ("1", "reject"), by="Bob", at=NOW + timedelta(days=1))
    rows = sorted(ledger.read(town, "town", "overrides").to_pylist(), key=lambda row: row["decided_at"])
    assert [(row["decided_by"], row["decision"], row["note"]) for row in rows] == [
        ("Ann", "keep", "a fine one"), ("Bob", "reject", None),
    ]  # fmt: skip
    assert [row["decided_at"] for row in rows] == [NOW, NOW + timedelta(days=1)]


def test_deciding_the_same_again_says_nothing_new(town: Layout) -> None:
    """Idempotent, by whomever and whenever; also a clear where nothing stands."""
    first = says(town, ("1", "keep"), ("2", "relabel", "boat"), ("4", "clear"))
    assert first == Decided(dataset="town", new=2, keep=1, reject=0, relabel=1)
    again = says(town, ("1", "keep"), ("2", "relabel", "boat"), by="Bob", at=NOW + timedelta(days=1))
    assert again == first.model_copy(update={"new": 0})
    assert ledger.read(town, "town", "overrides").num_rows == 2


def test_a_clock_that_was_ahead_does_not_make_a_decision_last(town: Layout) -> None:
    """A decision counts after those that were made before it, whatever the clocks said."""
    says(town, ("1", "keep"), at=NOW + timedelta(days=400))
    says(town, ("1", "reject"))
    assert standing(town) == {"1": ("reject", None)}
    says(town, ("1", "clear"))
    says(town, ("1", "relabel", "boat"))
    assert standing(town) == {"1": (None, "boat")}


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        ([("1", "keep"), ("9", "keep")], "'town' has no photo flickr/9 to decide about"),
        ([(str(n), "reject") for n in range(4, 12)], "flickr/10, flickr/11, flickr/6 and 3 more"),
        ([("1", "keep"), ("1", "reject")], "two decisions about flickr/1 contradict"),
        ([("1", "relabel", "a"), ("1", "relabel", "b")], "contradict"),
        ([("1", "clear"), ("1", "relabel", "b")], "contradict"),
        ([("1", "relabel")], "relabel of flickr/1 lacks a label"),
        ([("1", "relabel", " ; ")], "lacks a label"),
        ([("1", "keep", "boat")], "goes with the decision relabel only"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(town: Layout, decisions: Sequence[Any], words: str) -> None:
    """The photos are named, and none of the decisions is kept, not even the possible ones."""
    with pytest.raises(ConfigError, match=words) as refusal:
        says(town, *decisions)
    assert "\n" not in str(refusal.value)
    assert standing(town) == {}


def test_unknown_words_are_refused(town: Layout) -> None:
    """In the form by its choices, in a table by its rows, in storage by its check."""
    with pytest.raises(ValidationError, match="decision"):
        Decision(photo_id="1", decision="kep")  # type: ignore[arg-type]
    row = {**KEPT, "decision": "kep", "decided_by": "Ann", "decided_at": NOW}
    with pytest.raises(ConfigError, match="'kep' of flickr/1 is no decision: choose one of keep, reject"):
        overrides.record(town, "town", pa.Table.from_pylist([row], SCHEMAS["overrides"]))


def test_nothing_is_decided_about_a_removed_photo(town: Layout) -> None:
    """Not by a decision from before its removal, not by a new one, not even where unknown photos are allowed."""
    says(town, ("1", "keep"), ("2", "keep"))
    removals.add(town, [{**KEPT, "reason": "asked", "proof": "", "removed_at": NOW}])
    assert standing(town) == {"2": ("keep", None)}
    for allowed in (False, True):
        with pytest.raises(ConfigError, match="has no photo flickr/1 to decide about: removed"):
            says(town, ("1", "keep"), allow_unknown=allowed)


def test_an_unknown_photo_can_be_decided_about_in_advance(town: Layout) -> None:
    """If so allowed, the decision stands and waits for a search to find the photo."""
    says(town, ("77", "reject"), allow_unknown=True)
    assert standing(town) == {"77": ("reject", None)}


def test_a_dataset_that_is_none_is_refused(town: Layout) -> None:
    """With the known ones; and a decision without a source where there is more than one to choose from."""
    with pytest.raises(ConfigError, match=r"no dataset 'toun' to decide about: choose one of town"):
        decide(town, "toun", [], "Ann", NOW, False)
    other = {"source": "500px", "photo_id": "1", "observed_at": NOW}
    ledger.adopt(town, "town", manifest.write_rows(town, "listings", [other]))
    with pytest.raises(ConfigError, match="say the source with each photo_id"):
        says(town, ("1", "keep"))
    decide(town, "town", [Decision(source="500px", photo_id="1", decision="keep")], "Ann", NOW, False)
    assert overrides.decided(town, "town")["source"].to_pylist() == ["500px"]


@pytest.fixture
def pointed(town: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """The flow works on ``town``'s root; what it shows is kept in ``shown``."""
    monkeypatch.setenv("DARKROOM_ROOT", str(town.root))
    settings.cache_clear()
    yield town
    settings.cache_clear()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_flow_takes_a_table_and_shows_what_stands(
    pointed: Layout, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Columns photo_id and decision are enough; numbers are ids too; given decisions count beside the table."""
    file = pointed.root / f"mine.{ending}"
    if ending == "csv":
        file.write_text("photo_id,decision,label,extra\n1,keep,,x\n2,relabel,boat;sea,\n")
    else:
        columns = {"photo_id": [1, 2], "decision": ["keep", "relabel"], "label": [None, "boat;sea"]}
        pq.write_table(pa.table(columns), file)
    shown: dict[str, Any] = {}
    monkeypatch.setattr(flows.decide, "create_table_artifact", lambda table, **more: shown.update(more, table=table))
    result = flows.decide.decide_photos.fn(
        "town", "Ann", [Decision(photo_id="3", decision="reject")], f"{pointed.root.name}/{file.name}"
    )
    assert result == Decided(dataset="town", new=3, keep=1, reject=1, relabel=1)
    assert standing(pointed) == {"1": ("keep", None), "2": (None, "boat;sea"), "3": ("reject", None)}
    assert shown["key"] == "dataset-town-decisions"
    assert {"what": "new", "photos": 3} in shown["table"]
    with pytest.raises(ConfigError, match="nothing to decide"):
        flows.decide.decide_photos.fn("town", "Ann")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo_id,decision\n1,kep\n2,keep\n", "row 1: decision cannot be 'kep'.*keep, reject, relabel, clear"),
        ("photo_id,decision\n,keep\n", "row 1: photo_id cannot be None"),
        ("photo_id\n1\n", r"lacks decision: it has \['photo_id'\]"),
        ("source,photo_id,decision\nflicker,1,keep\n", "row 1: source cannot be 'flicker'"),
    ],
)
def test_a_table_that_holds_no_decisions_is_refused(pointed: Layout, text: str, words: str) -> None:
    """One sentence with the row, or the column that is not there."""
    (pointed.root / "bad.csv").write_text(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        from_table(f"{pointed.root.name}/bad.csv", settings())
    assert "\n" not in str(refusal.value)


def test_a_photo_id_keeps_its_blanks(pointed: Layout) -> None:
    """A file may be called so, and another without them; in a form as in a table. Other fields are stripped."""
    row = {"source": "flickr", "photo_id": " 1", "observed_at": NOW}
    ledger.adopt(pointed, "town", manifest.write_rows(pointed, "listings", [row]))
    (pointed.root / "mine.csv").write_text("photo_id,decision,label\n 1, relabel , boat \n")
    decide(pointed, "town", from_table(f"{pointed.root.name}/mine.csv", settings()), "Ann", NOW, False)
    says(pointed, (" 1", "reject"), ("1", "keep"))
    assert standing(pointed) == {" 1": ("reject", "boat"), "1": ("keep", None)}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_in_another_encoding_is_refused(pointed: Layout, encoding: str) -> None:
    """One sentence that says so, without columns that nobody can read."""
    (pointed.root / "bad.csv").write_bytes("photo_id,decision\r\n1,keep\r\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"not written in UTF-8.*save it as CSV in UTF-8") as refusal:
        from_table(f"{pointed.root.name}/bad.csv", settings())
    assert str(refusal.value).isprintable()


MOVES = st.tuples(
    st.sampled_from("123"), st.sampled_from(["keep", "reject", "relabel", "clear"]), st.sampled_from("ab")
)


@given(st.lists(MOVES, min_size=5, max_size=6))
@hypothesis_settings(deadline=None, max_examples=4)
def test_what_stands_is_what_was_said_last(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, str, str]]
) -> None:
    """The ledger, in whatever files, says what a person who remembers would say."""
    where = Layout(tmp_path_factory.mktemp("root"))
    remembered: dict[str, dict[str, str]] = {}
    for photo_id, decision, label in moves:
        row = {"source": "flickr", "photo_id": photo_id, "decision": decision, "decided_by": "Ann", "decided_at": NOW}
        row |= {"label": label} if decision == "relabel" else {}
        overrides.record(where, "town", pa.Table.from_pylist([row], SCHEMAS["overrides"]))
        if decision == "clear":
            remembered.pop(photo_id, None)
        else:
            kind = "relabel" if decision == "relabel" else "decision"
            remembered.setdefault(photo_id, {})[kind] = label if decision == "relabel" else decision
    assert standing(where) == {
        photo_id: (said.get("decision"), said.get("relabel")) for photo_id, said in remembered.items()
    }


def test_labels_of_a_cell() -> None:
    """Semicolons divide, blanks around do not count, each label once, the first one leads."""
    assert overrides.labels_of(" sea ; boat;;sea") == ["sea", "boat"]
