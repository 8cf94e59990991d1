"""Card and attribution say what the numbers say, and hostile text stays text in Markdown, YAML and spreadsheets."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pytest

from storage.records import SCHEMAS, SPLITS
from tasks.companions import card

FACTS = {
    "dataset": "crops", "version": 2, "parent": 1, "rules": {"queries": [{"text": "```\n# evil"}]}, "joined": "ab",
    "counts": {"train": 2, "val": 0, "test": 1, "rejected": 1}, "reasons": {"filter/too_small": 1},
    "code_version": "0.1.0", "created_at": "2026-01-02T03:04:05+00:00",
}  # fmt: skip


def joined(*changes: dict[str, Any]) -> pa.Table:
    """Joined rows, one for each of ``changes``."""
    plain = dict.fromkeys(SCHEMAS["publish"].names) | {
        "source": "flickr", "owner_id": "1@N00", "owner_name": "Ann", "title": "Harbour", "licence": "CC BY 2.0",
        "licence_url": "https://creativecommons.org/licenses/by/2.0/", "page_url": "https://www.flickr.com/photos/1/1/",
        "verdict": True, "split": "train", "sha256": "aa", "blob": "aa", "net_op": 1, "landscape_turns": 0,
        "bytes": 1000, "long_px": 1500, "short_px": 1000,
    }  # fmt: skip
    rows = [plain | {"photo_id": str(index)} | change for index, change in enumerate(changes)]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["publish"])


def credits(table: pa.Table) -> list[dict[str, str]]:
    """The rows of the attribution, read back."""
    return list(csv.DictReader(io.StringIO(card.attribution(table))))


def test_attribution_has_every_kept_photo_and_no_other() -> None:
    """One row for each kept photo, with title, author, source, licence and its link."""
    rows = credits(joined({}, {"verdict": False}, {"title": None, "owner_name": None, "licence": None}))
    assert [row["photo_id"] for row in rows] == ["0", "2"]
    assert rows[0]["author"] == "Ann"
    assert rows[0]["licence_url"] == "https://creativecommons.org/licenses/by/2.0/"
    assert (rows[1]["title"], rows[1]["author"], rows[1]["licence"]) == ("untitled", "1@N00", "unstated")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "none"),
        ({"landscape_turns": 1, "net_op": 8}, "turned 90° counter-clockwise"),
        ({"landscape_turns": 3, "blob": "bb"}, "turned 90° clockwise"),
        ({"blob": "bb"}, "turned upright"),
    ],
)
def test_changes_are_stated(row: dict[str, Any], said: str) -> None:
    """A turn is a change and is named with its direction; an untouched photo says none."""
    assert credits(joined(row))[0]["changes"] == said


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@SUM(A1)", " \t=cmd|' /C calc'!A0", "\r=1", "＝1"])
def test_a_spreadsheet_runs_nothing(title: str) -> None:
    """What would be a formula stands behind an apostrophe, on one line."""
    shown = credits(joined({"title": title}))[0]["title"]
    assert shown.startswith("'")
    assert not set(shown) & set("\r\n\t")


def test_ordinary_text_is_left_alone() -> None:
    """Quotes, commas and other scripts come back as they were."""
    title = 'A "good" day, 浮世絵 = Ukiyo-e'
    assert credits(joined({"title": title}))[0]["title"] == title


def test_header_is_what_the_hub_reads() -> None:
    """The YAML block lists the licences by the Hub's names, the size, and the splits that have photos."""
    by_sa = {"licence": "CC BY-NC-SA 4.0", "licence_url": "https://creativecommons.org/licenses/by-nc-sa/4.0/"}
    text = card.dataset_card(
        joined({}, by_sa, {"licence": "All Rights Reserved", "licence_url": "https://x.example"}), FACTS
    )
    fields = dict(line.split(": ", 1) for line in text.split("---\n")[1].splitlines())
    assert json.loads(fields["license"]) == ["cc-by-2.0", "cc-by-nc-sa-4.0", "other"]
    assert json.loads(fields["size_categories"]) == ["n<1K"]
    files = json.loads(fields["configs"])[0]["data_files"]
    assert [each["path"] for each in files] == ["train.parquet", "test.parquet"]


@pytest.mark.parametrize(
    ("name", "url", "spelled"),
    [
        ("CC0 1.0", "", "cc0-1.0"), ("CC BY-SA 2.0", "", "other"), ("CC-BY-SA-3.0", None, "cc-by-sa-3.0"),
        ("Attribution", "https://creativecommons.org/licenses/by/2.0/", "cc-by-2.0"), (None, None, "unknown"),
    ],
)  # fmt: skip
def test_licences_have_the_names_of_the_hub(name: str | None, url: str | None, spelled: str) -> None:
    """Creative Commons names become identifiers; whatever is not on the list is other."""
    assert card.hub_licence(name, url) == spelled


def test_card_answers_from_the_numbers() -> None:
    """Counts by split and reason, the configuration, sizes and turns stand in the card."""
    text = card.dataset_card(joined({}, {"blob": "bb"}, {"net_op": 8, "split": "test"}, {"verdict": False}), FACTS)
    assert "3 photographs, kept of 4 found." in text
    assert "| train | 2 |" in text
    assert "| rejected | 1 |" in text
    assert "1 files were turned without re-encoding, and 1 photos are to be turned when they are read" in text
    assert "1 owners and 0 duplicate groups have photos in more than one of them." in text
    assert card.FLICKR_NOTICE in text


def test_labels_and_licences_are_told_by_split() -> None:
    """A photo counts for each of its labels; a licence has its marks, photos of each split, and those left out."""
    by_nd = {"licence": "CC BY-ND 2.0", "licence_url": "https://creativecommons.org/licenses/by-nd/2.0/"}
    text = card.dataset_card(
        joined({"label": "bee", "labels": ["bee", "insect"]}, {"label": "bee", "split": "test"}, by_nd,
               {"verdict": False, "reason": "unknown_licence"}, {"licence_now": "CC0"}), FACTS,
    )  # fmt: skip
    assert "| bee | 1 | 0 | 1 |" in text
    assert "| insect | 1 | 0 | 0 |" in text
    assert "| CC BY-ND 2.0 | BY ND | 1 | 0 | 0 | 0 |" in text
    assert "| CC BY 2.0 | BY | 2 | 0 | 1 | 1 |" in text
    assert "1 photos have another one now. 1 photos (ND) may not be passed on altered." in text
    assert "1 photos were left out because the site does not explain their licence" in text


def test_proof_and_changes_are_quoted() -> None:
    """What the audit for leaks found, and what changed since the parent, as snapshot.json says it; else no word."""
    shares = {split: {"target": 0.5, "achieved": 0.4567, "best": 0.49} for split in SPLITS}
    account = {"splits": shares, "is_best_exact": True, "best_off_points": 1.0}
    proof = {"across_splits": {"owners": 0, "near_duplicates": 1234}, "shares": account}
    changes = {"added": 1234, "by_column": {"title": 2}}
    text = card.dataset_card(joined({}), FACTS | {"leakage": proof, "changes": changes})
    assert "lie in more than one split:\n 0 owners, 1,234 near duplicates." in text
    assert "| split | photos | target | achieved | best achievable |\n|---|---:|---:|---:|---:|\n" in text
    assert "| train | 2 | 50.00% | 45.67% | 49.00% |" in text
    assert "| rejected | 1 | | | |\n\n## Composition" in text
    assert (
        "## Changes since version 1\n\n| what | photos |\n|---|---:|\n| added | 1,234 |\n| by column title | 2 |"
        in text
    )
    without = card.dataset_card(joined({}), FACTS)
    assert "| split | photos |\n|---|---:|\n| train | 2 |\n| val | 0 |" in without
    assert "An audit" not in without
    assert "## Changes" not in without
    bounded = card.dataset_card(joined({}), FACTS | {"leakage": proof | {"shares": account | {"is_best_exact": False}}})
    assert "| achieved | bound |\n" in bounded
    assert (
        "| |\n\nThe bound: no split of undivided groups can come nearer than 1.00 percentage points.\n\n##" in bounded
    )


def test_companions_are_all_files_beside_the_tables() -> None:
    """Card, attribution, licences, description for machines: the same bytes for the same rows."""
    digests = {f"{split}.parquet": "00" * 32 for split in SPLITS}
    made = card.companions(joined({}), FACTS, digests)
    assert sorted(made) == ["ATTRIBUTION.csv", "LICENCES.csv", "README.md", "croissant.json"]
    assert made == card.companions(joined({}), FACTS, digests)
    assert all(data.endswith(b"\n") for data in made.values())


def test_notice_is_given_for_flickr_alone() -> None:
    """Photos of a stand-in for Flickr are not passed off as Flickr's: the card says where they came from."""
    text = card.dataset_card(joined({"page_url": "http://127.0.0.1:4270/photos/1/1/"}), FACTS)
    assert "SmugMug" not in text
    assert ":4270, by the queries" in text
    assert "This is not Flickr" in text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"source": "folder", "page_url": None}, "From a folder of files, by"),
        ({"source": "table", "page_url": "https://art.example/1"}, "From a table of photos (pages on art.example), by"),
        ({"source": "500px", "page_url": "https://500px.com/photo/1"}, "From 500px (pages on 500px.com), by"),
        ({}, "From Flickr (pages on www.flickr.com), by"),
    ],
)  # fmt: skip
def test_every_source_is_named(row: dict[str, Any], said: str) -> None:
    """A folder, a table or 500px is no stand-in for Flickr, whatever hosts its pages have."""
    text = card.dataset_card(joined(row), FACTS).replace("\\", "")
    assert said in text
    assert "This is not Flickr" not in text
    assert ("SmugMug" in text) == (not row)


def test_consent_is_claimed_of_stated_licences_alone() -> None:
    """Nobody is said to have published under a licence that is not stated."""
    none = {"licence": None, "licence_url": None}
    assert "They published under the licences below; nobody was asked.\n" in card.dataset_card(joined({}), FACTS)
    assert "below, but for 1 photos of which no licence is stated; nobody" in card.dataset_card(joined({}, none), FACTS)
    text = card.dataset_card(joined(none), FACTS)
    assert "No licence is stated, and nobody was asked.\n\n## Pre" in text
    assert "They published" not in text


@pytest.mark.parametrize("path", ["/home/ann/secret/t.csv", "../secret/t.csv", r"C:\secret\t.csv", "~/secret/t.csv/"])
def test_paths_are_told_by_their_last_part(path: str) -> None:
    """The configuration does not show the folders of the machine that made the dataset; addresses and words stay."""
    rules = {
        "queries": [{"path": path, "text": "red/green", "url": "https://x.example/a/b"}],
        "labels": {"mapping": path},
    }
    text = card.dataset_card(joined({}), FACTS | {"rules": rules})
    assert "secret" not in text
    assert text.count('"t.csv"') == 2
    assert '"red/green"' in text
    assert '"https://x.example/a/b"' in text


def test_an_export_counts_what_it_turned() -> None:
    """Photos that nobody was to turn stand upright in an export, and its card counts them."""
    table = joined(
        {"exif_orientation": 6}, {"exif_orientation": 6, "blob": "bb"}, {"exif_orientation": 1}, {"net_op": 8}
    )
    assert "2 were turned when they were exported" in card.dataset_card(table, FACTS, card.Files(is_export=True))
    assert "1 photos are to be turned when they are read" in card.dataset_card(table, FACTS)


def test_ids_can_be_joined() -> None:
    """An id is written as it is, line breaks too, while other cells stay on one line."""
    ids = ["nl\nx.jpg", "cr\r\nx.jpg", ' "q", =1 ', "=1+1"]
    table = joined(*({"photo_id": photo_id, "title": "=a\nb"} for photo_id in ids))
    rows = list(csv.DictReader(io.StringIO(card.attribution(table), newline="")))
    assert [row["photo_id"] for row in rows] == ids
    assert {row["title"] for row in rows} == {"'=a b"}


def test_hostile_text_cannot_leave_its_place() -> None:
    """A query cannot close its code block, a licence cannot add HTML, a link or a table row."""
    text = card.dataset_card(joined({"licence": "<img src=x>\n| [a](http://b) |", "label": "`x`"}), FACTS)
    assert text.count("```") == 4
    assert not [part for part in ("<img", "\n| [a]", "](http") if part in text]


def test_a_dataset_of_nothing_has_a_card() -> None:
    """No photo, no owner, no date: the card still says so."""
    empty = FACTS | {"counts": {"train": 0, "val": 0, "test": 0, "rejected": 0}, "reasons": {}}
    text = card.dataset_card(SCHEMAS["publish"].empty_table(), empty)
    assert "0 photographs, kept of 0 found." in text
    assert "No photo was turned away." in text
