"""How long the report of a dataset takes, how large its page is, and how much memory it needs.

Run: ``python tests/bench/reporting.py DIR [--photos 100000] [--labels 28] [--page FILE]`` with a folder of pictures.
The rows are made up, in the proportions of a real dataset, upon these pictures and changed copies of some; the version
before is compared too. Prints a Markdown table.
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from storage import blobs, manifest
from storage.layout import Layout
from storage.records import SCHEMAS, ManifestRef
from tasks import report
from tasks.measure import measure_photo

SEED = 20
WORDS = ("harbour", "meadow", "bridge", "glacier", "market", "lantern", "heron", "orchard", "viaduct", "dune")
LICENCES = {
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "All Rights Reserved": None,
}  # fmt: skip
REASONS = [  # (stage, reason, share of all)
    ("download", "gone", 0.02), ("measure", "truncated", 0.002), ("filter", "too_small", 0.06),
    ("filter", "wrong_aspect", 0.08), ("filter", "edited", 0.03), ("filter", "rejected_by_hand", 0.001),
    ("labels", "rare_label", 0.01), ("split", "bridges_splits", 0.001),
]  # fmt: skip
RULES = {"min_long_px": 1440, "min_short_px": 720, "aspect": 1.5, "aspect_tolerance": 0.02}
Row = dict[str, Any]


def copies(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Changed copies as people repost them, with the bits by which their hashes differ."""
    yield 6, image.resize((image.width // 2, image.height // 2))
    yield 31, ImageOps.crop(image, border=round(min(image.size) * 0.03))
    yield 18, ImageOps.expand(image, border=round(min(image.size) * 0.03), fill="white")


def stored(layout: Layout, data: bytes, image_format: str) -> Row:
    """The columns of one picture, its bytes kept."""
    sha256 = blobs.put(layout, data, image_format)
    row = {"sha256": sha256, "format": image_format, "bytes": len(data), **measure_photo(data)}
    upright = row.get("exif_orientation", 1)
    is_tall = (row["width"] < row["height"]) != (upright > 4)
    return row | {"blob": sha256, "net_op": 8 if is_tall and upright == 1 else upright, "landscape_turns": int(is_tall)}


def pictures(folder: Path, layout: Layout) -> list[Row]:
    """Every picture below ``folder``, and changed copies of every eighth; those that do not decode are left out."""
    found = []
    for place, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        try:
            image = Image.open(path)
            image.load()
        except OSError:
            continue
        if image.format not in {"JPEG", "PNG", "WEBP"}:
            continue
        original = stored(layout, path.read_bytes(), image.format) | {"title": path.stem.replace("_", " ")}
        found.append(original)
        for bits, copy in copies(image.convert("RGB")) if place % 8 == 0 else ():
            stream = io.BytesIO()
            copy.save(stream, "JPEG", quality=85)
            twin = {"duplicate_of": original["sha256"], "distance_bits": bits, "title": original["title"]}
            found.append(stored(layout, stream.getvalue(), "JPEG") | twin)
    return found


def made_up(shown: list[Row], photos: int, labels: int) -> pa.Table:
    """``photos`` joined rows (schema "publish") over the pictures ``shown``: each once, then at random."""
    rng = np.random.default_rng(SEED)
    which = np.concatenate([np.arange(len(shown)), rng.integers(0, len(shown), max(0, photos - len(shown)))])[:photos]
    owner = (rng.pareto(1.1, photos) * max(2, photos / 60)).astype(np.int64) % max(2, photos // 8)
    names = np.array([f"{WORDS[n % len(WORDS)]}{n // len(WORDS) or ''}" for n in range(labels)])
    licence = rng.choice(len(LICENCES), photos, p=[0.5, 0.25, 0.1, 0.15])
    reason = rng.choice(len(REASONS) + 1, photos, p=[*(each[2] for each in REASONS), 1 - sum(e[2] for e in REASONS)])
    split = rng.choice(3, owner.max() + 1, p=[0.75, 0.1, 0.15])[owner]
    uploaded = np.datetime64("2019-03-01", "us") + rng.triangular(0, 2000, 2400, photos).astype("timedelta64[D]")
    taken = pa.array(which)
    real = pa.Table.from_pylist(shown, schema=SCHEMAS["publish"]).take(taken)
    columns = dict(zip(real.column_names, real.columns, strict=True))
    is_copy = np.array([row.get("duplicate_of") is not None for row in shown])[which] & (reason == len(REASONS))
    label = names[np.minimum(rng.geometric(min(0.9, 6 / labels), photos) - 1, labels - 1)] if labels else None
    given = {
        "source": np.full(photos, "flickr"), "photo_id": np.char.mod("%08d", np.arange(photos)),
        "owner_id": np.char.mod("%d@N00", owner), "owner_name": np.char.mod("Photographer %d", owner),
        "licence": np.array(list(LICENCES))[licence], "uploaded_at": uploaded, "label": label,
        "group_id": np.char.mod("g%d", owner),
    }  # fmt: skip
    columns |= {name: pa.array(values) for name, values in given.items() if values is not None}
    columns["licence_url"] = pa.array(list(LICENCES.values())).take(pa.array(licence))
    columns |= verdicts(reason, split, is_copy, [row.get("duplicate_of") or row["sha256"] for row in shown], which)
    return manifest.conform("publish", pa.table(columns))


def verdicts(reason: Any, split: Any, is_copy: Any, group: list[str], which: Any) -> dict[str, pa.Array]:
    """The columns that say what became of a photo."""
    photos, is_kept = len(reason), (reason == len(REASONS)) & ~is_copy
    why = pa.array(np.where(is_copy, len(REASONS), np.where(is_kept, len(REASONS) + 1, reason)))
    stages = pa.array([*(each[0] for each in REASONS), "dedup", None]).take(why)
    texts = pa.array([*(each[1] for each in REASONS), "near_duplicate", None]).take(why)
    by_hand = np.array([each[1] == "rejected_by_hand" for each in REASONS] + [False])[reason]
    saved = is_kept & (np.arange(photos) % 997 == 3)
    grouped = pa.array(np.array(group)[which], mask=~(is_copy | is_kept) | (np.arange(photos) >= len(group)))
    return {
        "verdict": pa.array(is_kept), "reason_stage": stages, "reason": texts,
        "split": pa.array(np.array(["train", "val", "test"])[split], mask=~is_kept), "duplicate_group": grouped,
        "decision": pa.array(np.where(by_hand, "reject", "keep"), mask=~(by_hand | saved)),
    }  # fmt: skip


def aged(table: pa.Table) -> pa.Table:
    """The version before ``table``: a tenth of its photos missing, a few others there, some with other facts."""
    index = np.arange(table.num_rows)
    older = table.filter(pa.array(index % 10 != 7))
    index = np.arange(older.num_rows)
    changed = {
        "photo_id": pc.if_else(pa.array(index % 101 == 5), pc.binary_join_element_wise("x", older["photo_id"], ""),
                               older["photo_id"]),
        "verdict": pc.xor(older["verdict"], pa.array(index % 211 == 9)),
        "licence": pc.if_else(pa.array(index % 53 == 1), "CC BY-NC 2.0", older["licence"]),
    }  # fmt: skip
    for name, values in changed.items():
        older = older.set_column(older.schema.get_field_index(name), name, values)
    return manifest.conform("publish", older)


def measure(root: Path, joined: ManifestRef, before: ManifestRef) -> tuple[str, float, float, float]:
    """The page; wall time and CPU time, s; peak memory of this process, MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    page = report.page_of(Layout(root), joined, "made up", RULES, before)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return page, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Make the rows, report on them in a process of its own, say what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, help="write the page here")
    asked = parser.parse_args()
    print("| photos | pictures | wall, s | CPU, s | page, MB | peak memory, MB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        layout = Layout(Path(scratch))
        shown = pictures(asked.pictures, layout)
        table = made_up(shown, asked.photos, asked.labels)
        refs = [manifest.write(layout, "publish", rows) for rows in (table, aged(table))]
        for _ in range(asked.rounds):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                page, wall, cpu, peak_mb = fresh.submit(measure, layout.root, *refs).result()
            size_mb = len(page.encode()) / 1e6
            print(f"| {asked.photos:,} | {len(shown):,} | {wall:.1f} | {cpu:.1f} | {size_mb:.2f} | {peak_mb:,.0f} |")
    if asked.page:
        asked.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
