"""What travels with a published dataset: README.md (a dataset card), ATTRIBUTION.csv, LICENCES.csv and croissant.json.

Source: the questions of Gebru et al., "Datasheets for Datasets", CACM 64 (2021); the YAML header is what the Hugging
Face Hub reads; attribution has title, author, source, licence and changes, as Creative Commons recommends.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from storage.records import SPLITS
from tasks.companions.croissant import croissant
from tasks.companions.licences import UNSTATED, hub_licence, licence_report, licences_csv, marks, quarantined
from tasks.companions.spreadsheet import csv_of

FLICKR_HOST = "www.flickr.com"
ORIGINS = {"flickr": "Flickr", "500px": "500px", "folder": "a folder of files", "table": "a table of photos"}
PATHS = {"path", "mapping"}  # of the configuration: where files lie on somebody's machine
ABSOLUTE = re.compile(r"[/~]|\\\\|[A-Za-z]:[\\/]")
FLICKR_NOTICE = "This product uses the Flickr API but is not endorsed or certified by SmugMug, Inc."
COLUMNS = ("source", "photo_id", "title", "author", "author_id", "page_url", "licence", "licence_url", "changes")
UNTITLED, UNKNOWN = "untitled", "unknown"
TURNED = {1: "turned 90° counter-clockwise", 3: "turned 90° clockwise"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
TABLES: dict[str, str] = {split: f"{split}.parquet" for split in SPLITS}
READING = """```python
import pyarrow.parquet as pq

rows = pq.read_table("train.parquet").to_pylist()
row = rows[0]                     # source, photo_id, title, owner_name, licence, width, height, ...
row["blob"], row["format"]        # the digest that names its bytes: blobs/ab/cd/<digest>.<extension>
row["net_op"]                     # the EXIF orientation that is still to be applied; 1 = none
```

`report.html` shows the photos, `snapshot.json` has the digest of every file, `croissant.json` describes the tables."""


class Files(NamedTuple):
    """What a card says about the files beside it. ``data``: where the rows of a split lie; ``reading``: Markdown."""

    data: Mapping[str, str] = TABLES
    reading: str = READING
    is_export: bool = False
    has_locations: bool = False


def companions(table: pa.Table, facts: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, bytes]:
    """All files that travel with the Parquet files of a snapshot, by name. ``table``: its rows, kept and rejected
    (schema "publish"); ``facts``: what snapshot.json says; ``digests``: sha256 of the Parquet files by name."""
    texts = {
        "README.md": dataset_card(table, facts),
        "ATTRIBUTION.csv": attribution(table),
        "LICENCES.csv": licences_csv(table),
        "croissant.json": json.dumps(croissant(table, facts, digests), indent=1, ensure_ascii=False) + "\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def kept(table: pa.Table) -> pa.Table:
    """The rows of ``table`` that are published."""
    return table.filter(pc.coalesce(pc.field("verdict"), False))


def attribution(table: pa.Table, told: Callable[[Mapping[str, Any]], str] | None = None) -> str:
    """CSV with whom to thank for every kept photo and what was changed (``told``; else its turn); safe to open in a
    spreadsheet, but ids stand as they are, to be joined."""
    return csv_of(COLUMNS, (credit(row, told or changes) for row in _rows(kept(table))), exact=("photo_id",))


def _rows(photos: pa.Table) -> Iterator[dict[str, Any]]:
    used = ("source", "photo_id", "title", "owner_name", "owner_id", "page_url", "licence", "licence_url", "net_op",
            "landscape_turns", "blob", "sha256", "exif_orientation")  # fmt: skip
    for batch in photos.select(used).to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def credit(row: Mapping[str, Any], told: Callable[[Mapping[str, Any]], str]) -> tuple[str, ...]:
    """The values of COLUMNS for one photo."""
    return (
        row["source"], row["photo_id"], row["title"] or UNTITLED, row["owner_name"] or row["owner_id"] or UNKNOWN,
        row["owner_id"] or "", row["page_url"] or "", row["licence"] or UNSTATED, row["licence_url"] or "",
        told(row),
    )  # fmt: skip


def changes(row: Mapping[str, Any]) -> str:
    """What was changed about a photo: at most its turn, never its pixels' values."""
    if row["landscape_turns"] in TURNED:
        return TURNED[row["landscape_turns"]]
    return "turned upright" if row["blob"] and row["blob"] != row["sha256"] else "none"


def plain(text: object) -> str:
    """``text`` as one line of Markdown that shows exactly it: no markup, no HTML, no table cell of its own."""
    flat = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", str(text))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]()|#!~$:])", r"\\\1", flat)


def size_category(photos: int) -> str:
    """The Hub's word for a dataset of ``photos``."""
    return next((word for limit, word in SIZES if photos < limit), "n>1M")


def header(table: pa.Table, facts: Mapping[str, Any], data: Mapping[str, str]) -> str:
    """The YAML block that the Hub reads; every value is JSON, which is YAML that nobody can break out of."""
    photos = kept(table)
    pairs = set(zip(photos["licence"].to_pylist(), photos["licence_url"].to_pylist(), strict=True))
    present = [split for split in SPLITS if facts["counts"].get(split)]
    files = [{"split": HUB_SPLITS[split], "path": data[split]} for split in present]
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
    """``rules`` as JSON that can stand between code fences: a backtick inside is written as its escape; of a path there
    is the last part."""
    return json.dumps(_without_folders(rules), indent=2, default=str).replace("`", "\\u0060")


def _without_folders(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item, name) for item in value]
    if isinstance(value, str) and (name in PATHS or ABSOLUTE.match(value)):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def origins(table: pa.Table) -> list[str]:
    """Each source of ``table`` in words, with the hosts of its pages; Flickr only where these are its own."""
    return [_origin(source, _hosts(table, source)) for source in sorted(set(table["source"].to_pylist()))]


def _origin(source: str, hosts: list[str]) -> str:
    listed = ", ".join(hosts)
    if source == "flickr" and FLICKR_HOST not in hosts:
        return listed or "a place without pages"
    name = ORIGINS.get(source, source)
    return f"{name} (pages on {listed})" if hosts else name


def _hosts(table: pa.Table, source: str) -> list[str]:
    """The hosts of the pages of the photos of ``source``."""
    pages = table.filter(pc.field("source") == source)["page_url"].to_pylist()
    return sorted({urlsplit(url).netloc for url in pages if url} - {""})


def period(photos: pa.Table, column: str) -> tuple[datetime, datetime] | None:
    """The first and last time in ``column``; None if it has none."""
    bounds = pc.min_max(photos[column]).as_py()
    return (bounds["min"], bounds["max"]) if bounds["min"] is not None else None


def divided(photos: pa.Table, column: str) -> int:
    """How many values of ``column`` have photos in more than one split."""
    stated = photos.filter(pc.coalesce(pc.field(column), "") != "")
    counts = stated.group_by(["source", column]).aggregate([("split", "count_distinct")])
    return int(counts.filter(pc.field("split_count_distinct") > 1).num_rows)


def listed(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, int]]:
    """(name, number) of all numbers in ``value``, however deep."""
    for key, item in value.items():
        name = f"{before} {key}".strip().replace("_", " ")
        yield from listed(item, name) if isinstance(item, Mapping) else [(name, item)]


def labels_by_split(photos: pa.Table) -> list[tuple[str, dict[str, int]]]:
    """(label, photos by split) of each label, the most frequent first; a photo counts for each of its labels."""
    keys = ["label", "labels", "split"]
    found: dict[str, dict[str, int]] = {}
    counted = Counter(zip(*(map(_hashable, photos[key].to_pylist()) for key in keys), strict=True))
    for (label, labels, split), number in counted.items():
        for name in labels or filter(None, [label]):
            of_label = found.setdefault(name, dict.fromkeys(SPLITS, 0))
            of_label[split] = of_label.get(split, 0) + number
    return sorted(found.items(), key=lambda entry: (-sum(entry[1].values()), entry[0]))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def described(table: pa.Table, facts: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """What the card quotes."""
    photos = kept(table)
    hosts = _hosts(table, "flickr")
    licences, leakage = licence_report(table), facts.get("leakage") or {}
    return {
        "facts": facts, "files": files, "header": header(table, facts, files.data), "rules": fenced(facts["rules"]),
        "splits": SPLITS, "found": table.num_rows, "kept": photos.num_rows, "bytes": total(photos["bytes"]),
        "licences": licences, "marks": marks, "quarantined": quarantined(table),
        "no_derivatives": sum(entry.kept for entry in licences if entry.terms.no_derivatives),
        "relicensed": sum(sum(entry.changed_to.values()) for entry in licences),
        "labels": labels_by_split(photos), "uploaded": period(photos, "uploaded_at"),
        "taken": period(photos, "taken_at"), "sides": sides(photos),
        "turned": total(pc.not_equal(photos["blob"], photos["sha256"])),
        "later": total(pc.not_equal(photos["net_op"], 1)) + (total(left_lying(photos)) if files.is_export else 0),
        "divided": {column: divided(photos, column) for column in ("owner_id", "duplicate_group")},
        "located": photos.num_rows - photos["latitude"].null_count,
        "notice": FLICKR_NOTICE if FLICKR_HOST in hosts else "", "origins": origins(table),
        "is_standin": bool(hosts) and FLICKR_HOST not in hosts,
        "unstated": sum(entry.kept for entry in licences if entry.terms.kind == "unstated"),
        "across": leakage.get("across_splits"), "shares": leakage.get("shares", {}).get("splits"),
        "changes": list(listed(facts.get("changes") or {})),
        **concentration(photos),
    }  # fmt: skip


def left_lying(photos: pa.Table) -> pa.ChunkedArray:
    """Whether a photo was not to be turned though its EXIF says that it lies on its side; an export turns it."""
    is_as_stored = pc.and_(pc.equal(photos["net_op"], 1), pc.equal(photos["blob"], photos["sha256"]))
    return pc.and_(
        pc.and_(is_as_stored, pc.equal(photos["landscape_turns"], 0)), pc.not_equal(photos["exif_orientation"], 1)
    )


def concentration(photos: pa.Table) -> dict[str, int]:
    """How the photos are shared out among owners and duplicate groups."""
    owners = Counter(owner for owner in photos["owner_id"].to_pylist() if owner)
    groups = Counter(group for group in photos["duplicate_group"].to_pylist() if group)
    return {
        "owners": len(owners), "most_by_owner": max(owners.values(), default=0),
        "nameless": photos.num_rows - owners.total(), "repeated": groups.total() - len(groups),
    }  # fmt: skip


def sides(photos: pa.Table) -> list[list[float]] | None:
    """Least, median and greatest long and short side in px; None without photos."""
    found = [pc.quantile(photos[side], [0.0, 0.5, 1.0]).to_pylist() for side in ("long_px", "short_px")]
    return found if photos.num_rows and found[0][0] is not None else None


def total(column: pa.ChunkedArray) -> int:
    """The sum of ``column``; of claims, how many are true."""
    return int(pc.sum(column).as_py() or 0)


def dataset_card(table: pa.Table, facts: Mapping[str, Any], files: Files = Files()) -> str:  # noqa: B008  frozen
    """README.md of a snapshot, or of what was exported of it. ``table``: joined rows (schema "publish"); ``facts``:
    what snapshot.json says; ``files``: what lies beside the card."""
    return markdown().get_template("card.md.j2").render(described(table, facts, files))


def markdown() -> jinja2.Environment:
    """The templates of Markdown files: not HTML, ``plain`` escapes what Markdown would read."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks"), autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters |= {"plain": plain, "count": lambda n: f"{n:,}", "day": lambda when: f"{when:%Y-%m-%d}"}
    return pages
