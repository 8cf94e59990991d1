"""Labels: how tags are written, what becomes of them, and the account of it."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.layout import Layout
from storage.records import SCHEMAS
from storage.settings import settings as product_settings
from tasks import caching, vocabulary
from tasks.errors import ConfigError
from tasks.label_account import account
from tasks.labels import LabelRules, label_rows
from tasks.vocabulary import MAPPINGS, OPEN, LabelMap, Vocabulary, Word, load, normalise

FOOD = LabelRules(from_tags=True, mapping="food.1")
OPEN_TAGS = LabelRules(from_tags=True)
Tags = Mapping[str, Sequence[str]]


def tables(
    tags: Tags, relabels: Mapping[str, str] | None = None, rejected: Sequence[str] = (), label: str | None = None,
    copies: Mapping[str, str] | None = None,
) -> tuple[pa.Table, pa.Table, pa.Table]:  # fmt: skip
    """``tagged``, ``deduped`` and ``decided`` of photos with these tags; dedup saw all but ``rejected``, and ``copies``
    of others.
    """
    tagged = [{"source": "s", "photo_id": name, "tags": list(own), "label": label} for name, own in tags.items()]
    deduped = [{"source": "s", "photo_id": name} for name in tags if name not in rejected]
    for row in deduped:
        if row["photo_id"] in (copies or {}):
            row |= {"duplicate_of": f"s/{(copies or {})[row['photo_id']]}", "dedup_reason": "duplicate"}
    decided = [{"source": "s", "photo_id": name, "relabel": said} for name, said in (relabels or {}).items()]
    made = {"tagged": tagged, "dedup": deduped, "decided": decided}
    whole: list[pa.Table] = [pa.Table.from_pylist(rows, SCHEMAS[stage]) for stage, rows in made.items()]
    return whole[0], whole[1], whole[2]


def labels(rules: LabelRules, tags: Tags, **more: Any) -> dict[str, list[str]]:
    """The labels of each photo; its label is always the first of them."""
    rows = label_rows(*tables(tags, **more), rules).to_pylist()
    assert all(row["label"] == (row["labels"] or [None])[0] for row in rows)
    return {row["photo_id"]: row["labels"] for row in rows}


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        ("#Cake", "cake"),
        ("  Ice_Cream ", "ice cream"),
        ("ＣＡＫＥ", "cake"),
        ("＃cake", "cake"),
        ("café", "café"),
        ("crème", "crème"),
        ("soft\u00adhyphen", "softhyphen"),
        ("❤️", "❤"),
        ("##", ""),
        ("culture::After  British", "culture::after british"),
    ],
)
def test_a_tag_is_written_one_way(tag: str, written: str) -> None:
    """Width, case, hash, blanks, composed or not: one word; accents and inner punctuation stay."""
    assert normalise(tag) == written


@given(st.text())
@settings(max_examples=200)
def test_writing_twice_changes_nothing(tag: str) -> None:
    """normalise is idempotent, for any text."""
    assert normalise(normalise(tag)) == normalise(tag)


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("#Cakes", "sweets"),
        ("cake", "sweets"),
        ("chocolate_cakes", None),
        ("#vegan", "vegan"),
        ("Vegans", "vegan"),
        ("vegetarian", "vegetarian"),
        ("veggies", "veg"),
        ("sourdough bread", None),
        ("loaves", "bake"),
        ("Ice Creams", "sweets"),
        ("fries", "potato"),
    ],
)
def test_the_map_of_food(tag: str, label: str | None) -> None:
    """Forms of a word meet in their group, through lemmas or exceptions; vegan and vegetarian do not."""
    assert FOOD.vocabulary.word(tag).label == label


def test_vegan_stays_vegan_whatever_the_lemmatiser_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exceptions come first: a lemmatiser that merges the two, as the report's did, changes nothing."""
    monkeypatch.setattr(vocabulary.simplemma, "lemmatize", lambda word, lang: "vegetarian")
    for name in ("food.1", "english.1"):
        words = LabelRules(from_tags=True, mapping=name).vocabulary
        assert [words.word(tag).label for tag in ("#vegans", "#Vegetarian")] == ["vegan", "vegetarian"]


@pytest.mark.parametrize(("tag", "lemma"), [("leaves", "leaf"), ("best", "best"), ("mountains", "mountain")])
def test_the_map_of_english_corrects_lemmas(tag: str, lemma: str) -> None:
    """It groups nothing, and every lemma is a label."""
    assert LabelRules(from_tags=True, mapping="english.1").vocabulary.word(tag).label == lemma


def test_words_that_are_no_labels_have_a_loss() -> None:
    """Each for its own reason; a data set's own split is no word."""
    words = Vocabulary("en", LabelMap(ignore=("recipe",), groups={"sweets": ("cake",)}))
    losses = {tag: words.word(tag).loss for tag in ("#", "split:train", "#Recipes", "house", "cakes", "split:x")}
    assert losses == {
        "#": "empty", "split:train": "split", "#Recipes": "ignored", "house": "unmapped", "cakes": None,
        "split:x": "unmapped",
    }  # fmt: skip


@pytest.mark.parametrize("tag", ["geo:lat=48.858", "Camera:Lens_Type=50 mm", "#upcoming:event=", "x1:is_a=b=c\nd"])
def test_a_machine_tag_is_never_a_label(tag: str) -> None:
    """Not even if a map names it; a colon or an equals sign alone makes none."""
    words = LabelMap(groups={"place": (tag,)}, keep_unlisted=True)
    for named in (words, OPEN):
        assert Vocabulary("en", named).word(tag)[2:] == (None, "machine_tag")
    assert [OPEN_TAGS.vocabulary.word(each).loss for each in ("culture::a=b", "a=b", "at 10:30=late", "x:y")] == [
        None
    ] * 4


def test_the_word_as_written_comes_before_its_lemma() -> None:
    """A map can tell apart what the lemmatiser would put together; other languages have lemmas of their own."""
    groups = {"furniture": ("glasses",), "kitchen": ("glass",)}
    words = Vocabulary("en", LabelMap(exceptions={"Wine_Glasses": "glass"}, groups=groups))
    assert words.word("wine glasses").label == "kitchen"
    assert [words.word(tag).label for tag in ("glasses", "glass")] == ["furniture", "kitchen"]
    assert Vocabulary("fr", OPEN).word("#Gâteaux") == Word("gâteaux", "gâteau", "gâteau", None)
    assert Vocabulary(None, OPEN).word("Cakes").lemma == "cakes"


@pytest.mark.parametrize("file", sorted(MAPPINGS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_map_of_the_package_is_one(file: Any) -> None:
    """It loads by name and version, says what it is for, and survives the way through JSON."""
    found = load(file.stem)
    assert found.name == file.stem
    assert found.about
    assert LabelMap.model_validate_json(found.model_dump_json()) == found
    assert set(tomllib.loads(file.read_text())["exceptions"]) >= {"vegan", "vegetarian"}


def test_the_map_of_food_has_24_labels() -> None:
    """As many as the report that it follows ended with."""
    assert len(load("food.1").groups) == 24


def test_a_map_of_ones_own_counts_by_its_words(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules hold the map itself: an edited file is another cache key, and old rules still say what they meant."""
    monkeypatch.setenv("DARKROOM_ROOT", str(where.root / "data"))
    product_settings.cache_clear()
    file = where.root / "mine.toml"
    file.write_text('[groups]\npets = ["dog"]\n')
    first = LabelRules(from_tags=True, mapping="mine.toml")
    assert labels(first, {"1": ["dogs", "cat"]}) == {"1": ["pets"]}
    file.write_text('[groups]\npets = ["dog", "cat"]\n')
    second = LabelRules(from_tags=True, mapping="mine.toml")
    product_settings.cache_clear()
    assert caching.digest("labels", {"rules": first}) != caching.digest("labels", {"rules": second})
    assert LabelRules.model_validate(first.model_dump(mode="json")) == first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups]\na = ['x']\nb = ['X']\n", "the word 'x' stands in 'a' and in 'b'"),
        ("ignore = ['x']\n[groups]\na = ['x']\n", "stands in 'ignore' and in 'a'"),
        ("[groups]\na = ['#']\n", "the word ''"),
        ("groups = 3\n", "groups: "),
        ("[grops]\n", "grops: "),
        ("[groups\n", "is no TOML"),
    ],
)
def test_a_file_that_is_no_map_is_refused(
    where: Layout, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """One sentence that says what is wrong, and where."""
    monkeypatch.setattr(vocabulary, "MAPPINGS", where.root)
    (where.root / "bad.1.toml").write_text(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        load("bad.1")
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_is_refused() -> None:
    """A map with the known ones, a path with where it was looked for, a language; a map without tags to group."""
    with pytest.raises(ConfigError, match=r"no map of labels 'food\.7': choose one of english\.1, food\.1"):
        load("food.7")
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        load("nowhere/mine.toml")
    with pytest.raises(ValueError, match="no lemmas of the language 'xx'"):
        LabelRules(language="xx")
    with pytest.raises(ValueError, match="from_tags is off"):
        LabelRules(mapping="food.1")


def test_by_default_a_photo_is_called_what_its_query_says() -> None:
    """As it is written, and nothing where the query says nothing; tags do not count."""
    assert labels(LabelRules(), {"1": ["cake"]}, label="City and Architecture") == {"1": ["City and Architecture"]}
    assert labels(LabelRules(), {"1": ["cake"], "2": []}) == {"1": [], "2": []}


def test_labels_stand_in_the_order_of_the_tags() -> None:
    """Each once; the first is the dominant one."""
    assert labels(OPEN_TAGS, {"1": ["Dogs", "cat", "dog", "#CATS"]}) == {"1": ["dog", "cat"]}


def test_rare_labels_are_dropped_by_the_photos_that_dedup_keeps() -> None:
    """Two photos of three that are kept have a cat: enough. Two dogs, one of them rejected: too few."""
    tags = {"1": ["dog", "cat"], "2": ["cat"], "3": ["dog"]}
    rules = OPEN_TAGS.model_copy(update={"min_photos": 2})
    assert labels(rules, tags, rejected=["3"]) == {"1": ["cat"], "2": ["cat"], "3": []}
    assert labels(rules, tags) == {"1": ["dog", "cat"], "2": ["cat"], "3": ["dog"]}
    assert labels(OPEN_TAGS, tags, rejected=["1", "2", "3"])["1"] == ["dog", "cat"], "1 switches the rule off"


def test_a_person_has_the_last_word() -> None:
    """A relabel replaces tags and query, may have several labels, is never rare, and counts for its label."""
    tags = {"1": ["dog"], "2": ["cat"], "3": ["cat"]}
    rules = OPEN_TAGS.model_copy(update={"min_photos": 3})
    assert labels(rules, tags, relabels={"1": "My Boat; cat", "9": "x"}) == {
        "1": ["My Boat", "cat"], "2": ["cat"], "3": ["cat"],
    }  # fmt: skip
    assert labels(LabelRules(), tags, relabels={"1": "boat"}, label="town")["1"] == ["boat"]


def test_a_photo_without_a_label_can_be_left_out() -> None:
    """With a reason in its row, and only if so asked."""
    for require in (False, True):
        rows = label_rows(*tables({"1": ["dog"], "2": []}), OPEN_TAGS.model_copy(update={"require": require}))
        assert rows["labels_reason"].to_pylist() == [None, "no_label" if require else None]


def test_a_picture_without_a_label_is_called_what_its_copies_are_called() -> None:
    """So it is not left out for want of one; a label of its own, or a person's word, comes before, and rare ones go."""
    tags = {"1": [], "2": ["dog", "cat"], "3": ["cow", "dog"], "4": ["hen"], "5": ["dog"], "6": ["pig"]}
    copies = {"2": "1", "3": "1", "5": "4"}
    rules = OPEN_TAGS.model_copy(update={"require": True})
    rows = label_rows(*tables(tags, copies=copies), rules)
    assert rows["labels"].to_pylist()[:2] == [["cow", "dog", "cat"], ["dog", "cat"]]
    assert rows["labels"].to_pylist()[3] == ["hen"]
    assert rows["labels_reason"].null_count == len(tags)
    tags["7"] = ["dog"]
    assert labels(rules.model_copy(update={"min_photos": 2}), tags, copies=copies) == {
        "1": ["dog"], "2": ["dog"], "3": ["dog"], "4": ["dog"], "5": ["dog"], "6": [], "7": ["dog"],
    }  # fmt: skip
    assert labels(rules, tags, copies=copies, relabels={"1": "ant"})["1"] == ["ant"]
    assert labels(rules, tags, copies=copies, relabels={"2": "ant", "3": "bee"})["1"] == ["ant", "bee"]
    assert labels(rules, tags, relabels={"2": "ant"})["1"] == []


def test_what_a_person_keeps_needs_no_label() -> None:
    """keep overrules the rule that asks for one; a rejected photo, and one without a decision, go."""
    tagged, deduped, _ = tables({"1": [], "2": [], "3": []})
    said = [{"source": "s", "photo_id": name, "decision": word} for name, word in (("1", "keep"), ("2", "reject"))]
    decided = pa.Table.from_pylist(said, SCHEMAS["decided"])
    rows = label_rows(tagged, deduped, decided, OPEN_TAGS.model_copy(update={"require": True}))
    assert rows["labels_reason"].to_pylist() == [None, "no_label", "no_label"]


def test_the_account_says_what_merged_and_what_was_lost() -> None:
    """Tags by label, losses by reason with their tags, and how many distinct words each step leaves."""
    tags = {
        "1": ["#recipe", "Cakes", "cake", "vegan"], "2": ["cake", "vegetarians", "house"],
        "3": ["vegan", "Vegans", "#"], "4": ["dog", "cake"],
    }  # fmt: skip
    rules = FOOD.model_copy(update={"min_photos": 2})
    made = tables(tags, relabels={"4": "pet"}, rejected=["3"])
    found = account(*made, label_rows(*made, rules), rules)
    assert found["photos"] == {"all": 4, "kept": 3, "labelled": 3, "relabelled": 1}
    assert found["steps"] == {"tags": 9, "written": 8, "lemmas": 6, "grouped": 3, "labels": 2}
    assert found["labels"] == [
        {"label": "sweets", "photos": 2, "found": 2, "tags_in_all": 2,
         "tags": [{"tag": "cake", "photos": 2}, {"tag": "Cakes", "photos": 1}]},
        {"label": "pet", "photos": 1, "found": 1, "tags_in_all": 0, "tags": []},
    ]  # fmt: skip
    losses = {each["loss"]: (each["pairs"], [tag["tag"] for tag in each["tags"]]) for each in found["lost"]}
    assert losses == {
        "empty": (1, ["#"]), "ignored": (1, ["#recipe"]), "rare": (4, ["vegan", "Vegans", "vegetarians"]),
        "relabelled": (1, ["cake"]), "unmapped": (2, ["dog", "house"]),
    }  # fmt: skip
    assert found["pairs"] == {"all": 12, "in_labels": 3}
    assert found["rules"]["mapping"] == "food.1"
    assert json.loads(json.dumps(found)) == found


WORDS = st.sampled_from(["cake", "Cakes", "#vegan", "vegetarian", "dog", "#", "split:val", "a:b=c", "pies", "ƒ"])
PHOTOS = st.dictionaries(st.sampled_from("abcdef"), st.lists(WORDS, max_size=6), min_size=1)
RULES = st.sampled_from([FOOD, OPEN_TAGS, LabelRules(from_tags=True, mapping="english.1", require=True), LabelRules()])
RELABELS = st.dictionaries(st.sampled_from("abxy"), st.sampled_from(["cake", "pet;boat"]))
COPIES = st.dictionaries(st.sampled_from("def"), st.sampled_from("abc"))


def shuffle(table: pa.Table, order: Any) -> pa.Table:
    """The rows of ``table`` in another order."""
    return table.take(pa.array(order.sample(range(table.num_rows), table.num_rows), pa.int64()))


@given(
    PHOTOS, RULES, st.integers(1, 3), RELABELS, COPIES, st.sets(st.sampled_from("abc")),
    st.randoms(use_true_random=False),
)  # fmt: skip
@settings(deadline=None, max_examples=8)
def test_labelling_ignores_row_order_and_the_account_adds_up(
    tags: Tags, rules: LabelRules, least: int, relabels: Mapping[str, str], copies: Mapping[str, str],
    rejected: set[str], order: Any,
) -> None:  # fmt: skip
    """Every pair of a photo and a tag is in a label or in one loss; every label's photos are those that have it."""
    rules = rules.model_copy(update={"min_photos": least})
    made = tables(tags, relabels=relabels, rejected=sorted(rejected), label="town", copies=copies)
    rows = label_rows(*made, rules)
    shuffled = [shuffle(table, order) for table in made]
    assert label_rows(*shuffled, rules).equals(rows)
    found = account(*made, rows, rules)
    assert account(*shuffled, rows, rules) == found
    pairs = sum(len(set(own)) for own in tags.values()) if rules.from_tags else len(tags)
    assert found["pairs"]["all"] == pairs
    assert pairs == found["pairs"]["in_labels"] + sum(each["pairs"] for each in found["lost"])
    assert found["pairs"]["in_labels"] == sum(tag["photos"] for each in found["labels"] for tag in each["tags"])
    kept = tags.keys() - rejected - copies.keys()
    for each in found["labels"]:
        wearers = [row["photo_id"] for row in rows.to_pylist() if each["label"] in row["labels"]]
        assert (each["found"], each["photos"]) == (len(wearers), len(kept.intersection(wearers)))
    assert sorted(rows["photo_id"].to_pylist()) == sorted(tags), "no row is dropped"
