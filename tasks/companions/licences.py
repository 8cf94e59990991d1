"""Under which licences the photos of a snapshot are: what each allows, and how many photos of each split have it.

Source: Creative Commons, "About CC Licenses" (the elements BY, SA, NC, ND; CC0 and the Public Domain Mark); the names
of the Hugging Face Hub, "Licenses".
"""

import re
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from storage.records import SPLITS
from tasks.companions.spreadsheet import csv_of

UNSTATED = "unstated"
HUB_LICENCES = frozenset(  # the Creative Commons licences that the Hub has a word for
    [f"cc-by-{v}" for v in ("2.0", "2.5", "3.0", "4.0")] + [f"cc-by-{kind}-{v}" for kind, versions in {
        "sa": ("3.0", "4.0"), "nc": ("2.0", "3.0", "4.0"), "nd": ("4.0",), "nc-nd": ("3.0", "4.0"),
        "nc-sa": ("2.0", "3.0", "4.0"),
    }.items() for v in versions]
)  # fmt: skip
CC0 = re.compile(r"\bcc0\b|publicdomain/zero")
CC = re.compile(r"(?:licenses/|\bcc[ -])(by[a-z -]*?)[ /-](\d\.\d)")
FREE = re.compile(r"publicdomain/|public domain|government work|usa\.gov|no known copyright|flickr\.com/commons")
RESERVED = re.compile(r"all rights reserved")
COLUMNS = (
    "licence", "licence_url", "hub_name", "kind", "non_commercial", "no_derivatives", "share_alike",
    *SPLITS, "kept", "left_out", "changed_to",
)  # fmt: skip


class Terms(NamedTuple):
    """What a licence asks for. ``kind``: creative commons, public domain, all rights reserved, other, unknown (to the
    site itself), unstated. The flags are None where only its text can tell."""

    hub_name: str
    kind: str
    non_commercial: bool | None = None
    no_derivatives: bool | None = None
    share_alike: bool | None = None


class LicenceCount(NamedTuple):
    """Photos under one licence: kept ones by split, those left out, and of the kept ones those that have another now
    than when they were downloaded, by its name."""

    name: str
    url: str
    terms: Terms
    splits: dict[str, int]
    left_out: int
    changed_to: dict[str, int]

    @property
    def kept(self) -> int:
        """Photos in all splits."""
        return sum(self.splits.values())


def hub_licence(name: str | None, url: str | None) -> str:
    """A licence as the Hub spells it: ``other`` if it has no word for it, ``unknown`` if none is stated."""
    given = _words(name, url)
    if CC0.search(given):
        return "cc0-1.0"
    found = CC.search(given)
    word = f"cc-{found[1].replace(' ', '-')}-{found[2]}" if found else ""
    return word if word in HUB_LICENCES else "other" if given and given != UNSTATED else "unknown"


def terms(name: str | None, url: str | None) -> Terms:
    """What the licence called ``name``, or found at ``url``, asks for."""
    given, hub_name = _words(name, url), hub_licence(name, url)
    if found := CC.search(given):
        elements = re.split(r"[ -]", found[1])
        return Terms(hub_name, "creative commons", "nc" in elements, "nd" in elements, "sa" in elements)
    if CC0.search(given) or FREE.search(given):
        return Terms(hub_name, "public domain", False, False, False)
    if not given or given == UNSTATED:
        return Terms(hub_name, "unstated")
    if given.startswith("unknown:"):
        return Terms(hub_name, "unknown")
    return Terms(hub_name, "all rights reserved" if RESERVED.search(given) else "other")


def _words(name: str | None, url: str | None) -> str:
    return f"{url or ''} {name or ''}".strip().lower()


def licence_report(table: pa.Table) -> list[LicenceCount]:
    """One entry for each licence of ``table`` (schema "publish"), those of most kept photos first."""
    keys = ["licence", "licence_url", "licence_now", "split", "verdict"]
    counted = table.select(keys).group_by(keys).aggregate([([], "count_all")]).to_pylist()
    found: dict[tuple[str, str], LicenceCount] = {}
    for row in counted:
        key = (row["licence"] or UNSTATED, row["licence_url"] or "")
        entry = found.setdefault(key, LicenceCount(*key, terms(*key), dict.fromkeys(SPLITS, 0), 0, {}))
        if not row["verdict"] or row["split"] not in SPLITS:
            found[key] = entry._replace(left_out=entry.left_out + row["count_all"])
            continue
        entry.splits[row["split"]] += row["count_all"]
        if row["licence_now"]:
            entry.changed_to[row["licence_now"]] = entry.changed_to.get(row["licence_now"], 0) + row["count_all"]
    return sorted(found.values(), key=lambda entry: (-entry.kept, -entry.left_out, entry.name, entry.url))


def marks(entry: LicenceCount) -> str:
    """What users must mind, in the words of Creative Commons: BY, NC, ND, SA; else the kind of licence."""
    asked = {
        "BY": True,
        "NC": entry.terms.non_commercial,
        "ND": entry.terms.no_derivatives,
        "SA": entry.terms.share_alike,
    }
    if entry.terms.kind == "creative commons":
        return " ".join(mark for mark, is_asked in asked.items() if is_asked)
    return entry.terms.kind


def cells(entry: LicenceCount) -> tuple[str, ...]:
    """The values of COLUMNS for one licence; an empty flag: only its text can tell."""
    flags = [{True: "yes", False: "no", None: ""}[flag] for flag in entry.terms[2:]]
    changed = "; ".join(f"{name} ({photos})" for name, photos in sorted(entry.changed_to.items()))
    counts = (*entry.splits.values(), entry.kept, entry.left_out)
    return (entry.name, entry.url, entry.terms.hub_name, entry.terms.kind, *flags, *map(str, counts), changed)


def licences_csv(table: pa.Table) -> str:
    """LICENCES.csv of a snapshot: one row for each licence, with its link and the photos of each split."""
    return csv_of(COLUMNS, map(cells, licence_report(table)))


def quarantined(table: pa.Table) -> int:
    """Photos that wait because the site itself does not explain their licence."""
    return int(pc.sum(pc.equal(pc.coalesce(table["reason"], pa.scalar("")), "unknown_licence")).as_py() or 0)
