"""What travels with a published dataset: README.md (a dataset card) and ATTRIBUTION.csv.

Source: the questions of Gebru et al., "Datasheets for Datasets", CACM 64 (2021); the YAML header is what the Hugging
Face Hub reads; attribution has title, author, source, licence and changes, as Creative Commons recommends.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from storage.records import SPLITS

FLICKR_HOST = "www.flickr.com"
FLICKR_NOTICE = "This product uses the Flickr API but is not endorsed or certified by SmugMug, Inc."
COLUMNS = ("source", "photo_id", "title", "author", "author_id", "page_url", "licence", "licence_url", "changes")
UNTITLED, UNKNOWN, UNSTATED = "untitled", "unknown", "unstated"
TURNED = {1: "turned 90° counter-clockwise", 3: "turned 90° clockwise"}
FORMULA = re.compile(r"^[\s\x00-\x1f]*[=+\-@＝＋－＠|%]")  # a spreadsheet would run it
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
HUB_LICENCES = frozenset(  # the Creative Commons licences that the Hub has a word for
    [f"cc-by-{v}" for v in ("2.0", "2.5", "3.0", "4.0")] + [f"cc-by-{kind}-{v}" for kind, versions in {
        "sa": ("3.0", "4.0"), "nc": ("2.0", "3.0", "4.0"), "nd": ("4.0",), "nc-nd": ("3.0", "4.0"),
        "nc-sa": ("2.0", "3.0", "4.0"),
    }.items() for v in versions]
)  # fmt: skip
CC0 = re.compile(r"\bcc0\b|publicdomain/zero")
CC = re.compile(r"(?:licenses/|\bcc[ -])(by[a-z -]*?)[ /-](\d\.\d)")


def kept(table: pa.Table) -> pa.Table:
    """The rows of ``table`` that are published."""
    return table.filter(pc.coalesce(pc.field("verdict"), False))


def attribution(table: pa.Table) -> str:
    """CSV with whom to thank for every kept photo and what was changed; safe to open in a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    used = ("source", "photo_id", "title", "owner_name", "owner_id", "page_url", "licence", "licence_url", "net_op",
            "landscape_turns", "blob", "sha256", "exif_orientation")  # fmt: skip
    for row in kept(table).select(used).to_pylist():
        writer.writerow(map(cell, credit(row)))
    return stream.getvalue()


def credit(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of COLUMNS for one photo."""
    return (
        row["source"], row["photo_id"], row["title"] or UNTITLED, row["owner_name"] or row["owner_id"] or UNKNOWN,
        row["owner_id"] or "", row["page_url"] or "", row["licence"] or UNSTATED, row["licence_url"] or "",
        changes(row),
    )  # fmt: skip


def changes(row: Mapping[str, Any]) -> str:
    """What was changed about a photo: at most its turn, never its pixels' values."""
    if row["landscape_turns"] in TURNED:
        return TURNED[row["landscape_turns"]]
    return "turned upright" if row["blob"] and row["blob"] != row["sha256"] else "none"


def cell(text: str) -> str:
    """``text`` on one line and, if a spreadsheet could take it for a formula, behind an apostrophe.

    Source: OWASP, "CSV Injection".
    """
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)
    return f"'{text}" if FORMULA.match(text) else text


def plain(text: object) -> str:
    """``text`` as one line of Markdown that shows exactly it: no markup, no HTML, no table cell of its own."""
    flat = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", str(text))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]()|#!~$:])", r"\\\1", flat)


def hub_licence(name: str | None, url: str | None) -> str:
    """A licence as the Hub spells it: ``other`` if it has no word for it, ``unknown`` if none is stated."""
    given = f"{url or ''} {name or ''}".strip().lower()
    if CC0.search(given):
        return "cc0-1.0"
    found = CC.search(given)
    word = f"cc-{found[1].replace(' ', '-')}-{found[2]}" if found else ""
    return word if word in HUB_LICENCES else "other" if given else "unknown"


def size_category(photos: int) -> str:
    """The Hub's word for a dataset of ``photos``."""
    return next((word for limit, word in SIZES if photos < limit), "n>1M")


def header(table: pa.Table, facts: Mapping[str, Any]) -> str:
    """The YAML block that the Hub reads; every value is JSON, which is YAML that nobody can break out of."""
    photos = kept(table)
    pairs = set(zip(photos["licence"].to_pylist(), photos["licence_url"].to_pylist(), strict=True))
    present = [split for split in SPLITS if facts["counts"].get(split)]
    files = [{"split": "validation" if split == "val" else split, "path": f"{split}.parquet"} for split in present]
    fields: dict[str, Any] = {
        "pretty_name": f"{facts['dataset']}, version {facts['version']}",
        "license": sorted({hub_licence(name, url) for name, url in pairs}) or ["unknown"],
        "size_categories": [size_category(photos.num_rows)],
        "task_categories": ["image-classification" if photos["label"].null_count < photos.num_rows else "other"],
        "tags": ["photographs", "darkroom", *sorted(set(photos["source"].to_pylist()))],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())


def fenced(rules: object) -> str:
    """``rules`` as JSON that can stand between code fences: a backtick inside is written as its escape."""
    return json.dumps(rules, indent=2, default=str).replace("`", "\\u0060")


def period(photos: pa.Table, column: str) -> tuple[datetime, datetime] | None:
    """The first and last time in ``column``; None if it has none."""
    bounds = pc.min_max(photos[column]).as_py()
    return (bounds["min"], bounds["max"]) if bounds["min"] is not None else None


def divided(photos: pa.Table, column: str) -> int:
    """How many values of ``column`` have photos in more than one split."""
    stated = photos.filter(pc.coalesce(pc.field(column), "") != "")
    counts = stated.group_by(["source", column]).aggregate([("split", "count_distinct")])
    return int(counts.filter(pc.field("split_count_distinct") > 1).num_rows)


def described(table: pa.Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that the card quotes."""
    photos = kept(table)
    owners = Counter(owner for owner in photos["owner_id"].to_pylist() if owner)
    groups = Counter(group for group in photos["duplicate_group"].to_pylist() if group)
    sides = [pc.quantile(photos[side], [0.0, 0.5, 1.0]).to_pylist() for side in ("long_px", "short_px")]
    hosts = {urlsplit(url).netloc for url in table["page_url"].to_pylist() if url}
    return {
        "facts": facts, "header": header(table, facts), "rules": fenced(facts["rules"]), "splits": SPLITS,
        "found": table.num_rows, "kept": photos.num_rows, "owners": len(owners),
        "most_by_owner": max(owners.values(), default=0),
        "nameless": photos.num_rows - owners.total(), "bytes": pc.sum(photos["bytes"]).as_py() or 0,
        "licences": Counter(name or UNSTATED for name in photos["licence"].to_pylist()).most_common(),
        "labels": Counter(label for label in photos["label"].to_pylist() if label).most_common(),
        "uploaded": period(photos, "uploaded_at"),
        "taken": period(photos, "taken_at"), "sides": sides if photos.num_rows and sides[0][0] is not None else None,
        "turned": pc.sum(pc.not_equal(photos["blob"], photos["sha256"])).as_py() or 0,
        "divided": {column: divided(photos, column) for column in ("owner_id", "duplicate_group")},
        "later": pc.sum(pc.not_equal(photos["net_op"], 1)).as_py() or 0,
        "located": photos.num_rows - photos["latitude"].null_count, "repeated": groups.total() - len(groups),
        "notice": FLICKR_NOTICE if FLICKR_HOST in hosts else "", "hosts": sorted(hosts),
    }  # fmt: skip


def dataset_card(table: pa.Table, facts: Mapping[str, Any]) -> str:
    """README.md of a snapshot. ``table``: joined rows (schema "publish"); ``facts``: what snapshot.json says."""
    markdown = jinja2.Environment(  # not HTML: ``plain`` escapes what Markdown would read
        loader=jinja2.PackageLoader("tasks"), autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    markdown.filters |= {"plain": plain, "count": lambda n: f"{n:,}", "day": lambda when: f"{when:%Y-%m-%d}"}
    return markdown.get_template("card.md.j2").render(described(table, facts))
