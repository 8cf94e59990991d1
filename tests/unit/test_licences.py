"""The licence report says what each licence asks for, and counts every photo once."""

import csv
import io
from typing import Any

import pyarrow as pa
import pytest

from storage.records import SCHEMAS
from tasks.companions.licences import COLUMNS, Terms, licence_report, licences_csv, marks, quarantined, terms

BY_NC_ND = ("CC BY-NC-ND 2.0", "https://creativecommons.org/licenses/by-nc-nd/2.0/")


def joined(*changes: dict[str, Any]) -> pa.Table:
    """Joined rows, one for each of ``changes``."""
    plain = dict.fromkeys(SCHEMAS["publish"].names) | {
        "source": "flickr", "licence": BY_NC_ND[0], "licence_url": BY_NC_ND[1], "verdict": True, "split": "train",
    }  # fmt: skip
    rows = [plain | {"photo_id": str(place)} | change for place, change in enumerate(changes)]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["publish"])


@pytest.mark.parametrize(
    ("name", "url", "asked"),
    [
        ("CC BY 2.0", None, Terms("cc-by-2.0", "creative commons", False, False, False)),
        ("Attribution-NoDerivs", "https://creativecommons.org/licenses/by-nd/2.0/",
         Terms("other", "creative commons", False, True, False)),
        ("x", "http://creativecommons.org/licenses/by-nc-sa/4.0/deed.de",
         Terms("cc-by-nc-sa-4.0", "creative commons", True, False, True)),
        (*BY_NC_ND, Terms("other", "creative commons", True, True, False)),
        ("CC0 1.0", None, Terms("cc0-1.0", "public domain", False, False, False)),
        ("Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/",
         Terms("other", "public domain", False, False, False)),
        ("United States Government Work", "http://www.usa.gov/copyright.shtml",
         Terms("other", "public domain", False, False, False)),
        ("All Rights Reserved", "", Terms("other", "all rights reserved")),
        ("unknown:77", "", Terms("other", "unknown")),
        ("MIT", "https://opensource.org/license/mit", Terms("other", "other")),
        (None, None, Terms("unknown", "unstated")),
        ("unstated", None, Terms("unknown", "unstated")),
    ],
)  # fmt: skip
def test_terms_follow_from_name_or_link(name: str | None, url: str | None, asked: Terms) -> None:
    """Elements of Creative Commons are read from either; where only the text can tell, no flag is set."""
    assert terms(name, url) == asked


def test_every_photo_is_counted_once() -> None:
    """By split, or as left out; one entry a licence, the most used first; none stated is ``unstated``."""
    rows = joined(
        {}, {}, {"split": "val"}, {"split": "test", "licence_now": "CC0 1.0"}, {"verdict": False, "split": None},
        {"licence": None, "licence_url": None}, {"verdict": False, "licence": "unknown:9", "licence_url": None},
    )  # fmt: skip
    first, second, third = licence_report(rows)
    assert (first.name, first.splits, first.left_out) == (BY_NC_ND[0], {"train": 2, "val": 1, "test": 1}, 1)
    assert first.changed_to == {"CC0 1.0": 1}
    assert (second.name, second.kept) == ("unstated", 1)
    assert (third.name, third.kept, third.left_out) == ("unknown:9", 0, 1)
    assert sum(entry.kept + entry.left_out for entry in (first, second, third)) == rows.num_rows


def test_what_users_must_mind_is_in_short() -> None:
    """BY NC ND as Creative Commons has it; a kind for the others."""
    rows = joined(
        {}, {"licence": "CC0 1.0", "licence_url": None}, {"licence": "All Rights Reserved", "licence_url": None}
    )
    assert sorted(map(marks, licence_report(rows))) == ["BY NC ND", "all rights reserved", "public domain"]


def test_the_sheet_reads_back() -> None:
    """One row a licence, flags as yes, no or nothing, and no formula."""
    hostile = "=HYPERLINK(1)\nx"
    sheet = licences_csv(joined({}, {"licence": hostile, "licence_url": None}, {"licence_now": "CC0"}))
    rows = {row["licence"]: row for row in csv.DictReader(io.StringIO(sheet))}
    assert tuple(next(iter(rows.values()))) == COLUMNS
    told = rows[BY_NC_ND[0]]
    assert (told["non_commercial"], told["share_alike"], told["train"], told["kept"]) == ("yes", "no", "2", "2")
    assert told["changed_to"] == "CC0 (1)"
    assert rows["'=HYPERLINK(1) x"]["non_commercial"] == ""


def test_photos_that_wait_for_an_explanation_are_counted() -> None:
    """Rejected for a licence that the site does not explain."""
    waiting = {"verdict": False, "reason": "unknown_licence", "reason_stage": "download"}
    assert quarantined(joined({}, waiting, waiting, {"verdict": False, "reason": "gone"})) == 2
    assert quarantined(joined()) == 0
