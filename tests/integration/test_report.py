"""Reports are read by people and by a parser here: what stands in the page, what it refers to, how large it is."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage import blobs, manifest
from storage.layout import Layout
from storage.records import SCHEMAS, FileRef, PackRef
from tasks import report
from tasks.pages import dataset_page, page_charts, page_rows, rectangles, thumbnails

HOSTILE = '"><img src=https://evil.example/x onerror=alert(1)></figcaption><script>alert(2)</script>'
REASONS = {
    "download": ["gone", "html"], "measure": ["truncated"], "filter": ["too_small", "wrong_aspect"],
    "rotate": ["no_turn"], "dedup": ["near_duplicate"], "split": ["bridges_splits"],
}  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr", "image", "rect"}
Row = dict[str, Any]


class Page(HTMLParser):
    """The elements of a page: (tag, attributes) in order, text by id of the innermost element that has one."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        for _, name in self._open:
            if name:
                self.by_id[name] = self.by_id.get(name, "") + data

    def count(self, tag: str, **attributes: str) -> int:
        """How many elements of ``tag`` have these attributes (``class_`` for class)."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return sum(name == tag and wanted.items() <= attrs.items() for name, attrs in self.elements)

    def addresses(self) -> Iterator[tuple[str, str]]:
        """(tag, address) of everything that a browser might load or follow."""
        for tag, attrs in self.elements:
            for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                if attrs.get(name):
                    yield tag, attrs[name] or ""


def jpeg(seed: int, width: int, height: int) -> bytes:
    """A small picture of its own for every seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def photo(layout: Layout, index: int, reason: tuple[str, str] | None) -> Row:
    """One joined row: kept, or rejected for (stage, reason)."""
    row: Row = dict.fromkeys(SCHEMAS["publish"].names)
    width, height = (320, 214) if index % 5 else (214, 320)
    stage = reason[0] if reason else None
    row |= {
        "source": "flickr", "photo_id": f"{index:05}", "owner_id": f"{index % 7}@N00",
        "owner_name": f"=owner & {index % 7}",
        "title": HOSTILE if index % 4 == 0 else f"photo {index}", "licence": "CC BY 2.0", "verdict": reason is None,
        "licence_url": "https://creativecommons.org/licenses/by/2.0/", "reason": reason and reason[1],
        "page_url": "javascript:alert(3)" if index % 10 == 3 else f"https://photos.example/{index}",
        "reason_stage": stage,
        "uploaded_at": datetime(2020 + index % 3, 1 + index % 12, 1, tzinfo=UTC),
    }  # fmt: skip
    if stage:
        row[f"{stage}_reason"] = reason and reason[1]
    if stage == "download":
        return row
    data = jpeg(index, width, height)
    row |= {"sha256": blobs.put(layout, data, "JPEG"), "bytes": len(data), "format": "JPEG"}
    if stage == "measure":
        return row
    row |= {
        "width": width, "height": height, "long_px": 320, "short_px": 214, "aspect_milli": 1000 * width // height,
        "exif_orientation": 1, "exif_make": "Canon", "exif_model": "Canon EOS 70D" if index % 2 else "",
    }  # fmt: skip
    if stage in {None, "dedup", "split"}:
        turns = 0 if width > height else 1
        row |= {"blob": row["sha256"], "net_op": 8 if turns else 1, "landscape_turns": turns}
        row |= {
            "duplicate_group": "twins" if stage == "dedup" or index == 1 else f"solo{index}",
            "group_id": row["owner_id"],
        }
    if stage == "dedup":
        row |= {"duplicate_of": "00001", "distance_bits": 12}
    if stage is None:
        row["split"] = ("train", "train", "val", "train", "test", "test", "train")[index % 7]
    return row


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A data root for the photos of this module."""
    return Layout(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def table(shelf: Layout) -> pa.Table:
    """60 kept photos and two of every reason."""
    wanted = [None] * 60 + [(stage, reason) for stage, names in REASONS.items() for reason in names for _ in range(2)]
    rows = [photo(shelf, index, reason) for index, reason in enumerate(wanted)]
    return manifest.conform("publish", pa.Table.from_pylist(rows, schema=SCHEMAS["publish"]))


@pytest.fixture(scope="module")
def page(table: pa.Table, shelf: Layout) -> tuple[str, Page]:
    """The dataset report of ``table``, as text and parsed."""
    rules = {"min_long_px": 300, "min_short_px": 200, "aspect": 1.5, "aspect_tolerance": 0.05}
    html = report.dataset_report(table, HOSTILE, shelf, rules)
    return html, Page(html)


@pytest.fixture(scope="module")
def run(table: pa.Table, shelf: Layout) -> tuple[Path, Path]:
    """The folders of a finished run and of the pack that it was trained on."""
    run_dir, pack_dir = shelf.run("abc123"), shelf.pack("pack1")
    run_dir.mkdir(parents=True)
    pack_dir.mkdir(parents=True)
    keys = [row for row in table.to_pylist() if row["split"] == "test"]
    rng = np.random.default_rng(5)
    np.save(pack_dir / "test.npy", rng.integers(0, 255, (len(keys), 40, 60, 3), dtype=np.uint8))
    pq.write_table(pa.Table.from_pylist(keys).select(["source", "photo_id"]), pack_dir / "test.parquet")
    (pack_dir / "pack.json").write_text("{}")
    pq.write_table(pa.Table.from_pylist(predictions(keys, rng)), run_dir / "predictions.parquet")
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation(len(keys), keys[0]["photo_id"])))
    epochs = [{"event": "epoch", "epoch": n, "loss": 2.0 / n, "val_loss": 2.1 / n, "lr": 1e-3} for n in range(1, 5)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [{"event": "start"}, *epochs]))
    described = {
        "run_id": "abc123",
        "recipe": {
            "name": "<b>crops</b>", "title": "Crops | of *all*", "optimiser": {"lr": 0.005}, "epochs": 4,
            "system": {"kind": "crops"},
        },
        "packages": {"torch": "9.9"}, "parameters": 1234, "classes": [], "seed": 0, "device": "cpu",
        "final": {
            "photos": {"train": 30, "val": 14}, "epochs": 4, "stopped_early": None, "best_epoch": 3, "seconds": 2.0,
        },
    }  # fmt: skip
    (run_dir / "train.json").write_text(json.dumps(described))
    return run_dir, pack_dir


def predictions(keys: list[Row], rng: np.random.Generator) -> list[Row]:
    """Each photo once whole and twice cropped; predicted sizes are 0.05 too small, always."""
    rows = []
    for key in keys:
        for sample, size in enumerate((1.0, *rng.uniform(0.5, 0.9, 2))):
            true, predicted = (0.0, size, 0.0, size), (0.0, size - 0.05, 0.0, size - 0.05)
            rows.append({
                "source": key["source"], "photo_id": key["photo_id"], "split": "test", "sample": sample,
                "is_crop": sample > 0,
                "weight": 0.25 if sample else 0.5, "crop_logit": sample - 0.5,
                "crop_probability": 0.8 if sample else 0.3, "called_crop": sample > 0,
                "size_factor": size, "pred_size_factor": size - 0.05,
                **dict(zip(rectangles.TRUE_COLUMNS, true, strict=True)),
                **dict(zip(rectangles.PREDICTED_COLUMNS, predicted, strict=True)),
            })  # fmt: skip
    return rows


def evaluation(photos: int, first: str) -> Row:
    """An evaluation.json with one figure that wins and one that does not."""
    won = {
        "name": "crop_accuracy", "label": "Crop or whole", "value": 0.8, "low": 0.7, "high": 0.9, "baseline": 0.5,
        "baseline_label": "coin", "better": "higher", "unit": "", "beats_baseline": True, "difference": 0.3,
        "difference_low": 0.2, "difference_high": 0.4,
    }  # fmt: skip
    lost = won | {"label": "Size <factor>", "better": "lower", "beats_baseline": False, "difference_low": -0.1}
    share = {"value": 0.6, "low": 0.4, "high": 0.8}
    bins = [{"probability": 0.3, "frequency": 0.35, "low": 0.2, "high": 0.5, "count": 9}]
    reliable = {"calibration_error": share, "calibration_error_if_calibrated": 0.02, "bins": bins}
    errors = {"name": "rectangle_crops", "label": "rectangle, crops", "values": [-0.05, -0.04],
              "mae": share | {"value": 0.05}, "bias": share | {"value": -0.05}}  # fmt: skip
    return {
        "split": "test", "photos": photos, "samples": 3 * photos, "figures": [won, lost],
        "recipe": {"system": {"kind": "crops"}}, "decisions": {"threshold": 0.0}, "decisions_chosen_on": "val",
        "calibration": {"crop": {"label": "A <crop>", "temperature": 1.4, "before": reliable, "after": reliable}},
        "responses": {"vignetting": [{"strength": x, "figures": [won | {"value": 0.8 - x / 10}]} for x in (0, 1)]},
        "pictures": {
            "size_factor_errors": [errors | {"label": label} for label in (
                "rectangle, crops", "rectangle, whole photos", "answer (whole where no crop is called), half crops",
                "rectangle from the heat-maps, crops",
            )],
            "accuracy_by_size_factor": [{"from": 0.5, "to": 0.6, "samples": 20, **share}],
            "accuracy_by_edge": [{"edge": "left", "samples": 20, **share}],
            "heat_maps": [{
                "source": "flickr", "photo_id": photo_id, "sample": 1, "rectangle": [0.0, 0.5, 0.25, 0.75],
                "true_cells": [4] * 16, "probabilities": [[0.0] * 4 + [1.0] + [0.0] * 11] * 16, "consistency": 0.1,
            } for photo_id in (first, "gone")],
        },
    }  # fmt: skip


def test_counts_stand_in_the_page(page: tuple[str, Page], table: pa.Table) -> None:
    """The headline, the table of reasons and the contact sheets show the counts of the table."""
    dom, splits = page[1], Counter(row["split"] for row in table.to_pylist() if row["verdict"])
    assert (dom.by_id["found"], dom.by_id["kept"]) == ("76", "60")
    assert {split: dom.by_id[f"split-{split}"] for split in splits} == {name: str(n) for name, n in splits.items()}
    reasons = dom.by_id["reason-table"]
    assert all(reason in reasons for names in REASONS.values() for reason in names)
    assert reasons.count("2.6 %") == 8
    assert f"{min(30, splits['train'])} of {splits['train']} photos" in dom.by_id["sheet-train"]


def test_titles_are_shown_and_never_run(page: tuple[str, Page]) -> None:
    """A hostile title stands in the page as text and as alternative text, and adds no element to it."""
    html, dom = page
    assert dom.count("script") == 0
    assert "evil.example" in html
    assert not any(name.startswith("on") for _, attrs in dom.elements for name in attrs)
    assert HOSTILE in "".join(dom.text)
    assert any((attrs.get("alt") or "").startswith(HOSTILE) for tag, attrs in dom.elements if tag == "img")


def test_the_page_needs_no_network(page: tuple[str, Page]) -> None:
    """Pictures are data; only links lead outside, to pages of photos and of licences and to nothing but http(s)."""
    for tag, address in page[1].addresses():
        inside = address.startswith(("data:image/", "#"))
        assert inside or (tag == "a" and address.startswith("https://")), (tag, address[:80])
    assert "default-src 'none'" in page[0]
    assert "url(" not in page[0].replace("url(#", "")


def test_every_picture_has_words(page: tuple[str, Page]) -> None:
    """Photos have alternative texts, charts have labels, and every entry of the contents leads to a section."""
    dom = page[1]
    assert all(attrs.get("alt") for tag, attrs in dom.elements if tag == "img")
    assert dom.count("figure", class_="chart") == 4
    assert all(attrs.get("aria-label") for tag, attrs in dom.elements if attrs.get("role") == "img")
    anchors = {address[1:] for tag, address in dom.addresses() if tag == "a" and address.startswith("#")}
    assert anchors == {attrs["id"] for tag, attrs in dom.elements if tag == "section"}
    assert anchors == set(dataset_page.CONTENTS) - {"changes", "decisions", "labels", "leakage"}


def test_rejected_photos_are_shown_where_they_decode(page: tuple[str, Page], table: pa.Table) -> None:
    """Photos of a reason that leaves no picture are listed by their titles; no blank stands for any photo."""
    unseen = {row["reason"] for row in table.to_pylist() if row["width"] is None}
    assert page[1].count("ul", class_="named") == len(unseen) == 3
    assert page[1].count("span", class_="missing") == 0


def test_a_photo_is_drawn_upright(table: pa.Table, shelf: Layout) -> None:
    """A portrait whose turn is left to the reader stands landscape in the sheet."""
    row = next(row for row in table.to_pylist() if row["net_op"] == 8)
    shown = thumbnails.picture(shelf, row)
    assert shown.width > shown.height == row["short_px"]


def test_waterfall_ends_at_what_is_kept(table: pa.Table) -> None:
    """Found, less every reason in the order of the stages, is kept; each bar starts where the next one ends."""
    with page_rows.database(table) as db:
        steps = page_charts.waterfall(db)
    assert steps[0].photos - sum(step.photos for step in steps[1:-1]) == steps[-1].photos == 60
    assert [step.note for step in steps[1:-1]] == [stage for stage, names in REASONS.items() for _ in names]
    assert steps[-2].start == pytest.approx(steps[-1].share)


def test_the_same_table_gives_the_same_page(table: pa.Table, shelf: Layout, page: tuple[str, Page]) -> None:
    """A report is a function of its table, whatever the order of the rows."""
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    rules = {"min_long_px": 300, "min_short_px": 200, "aspect": 1.5, "aspect_tolerance": 0.05}
    again = report.dataset_report(shuffled, HOSTILE, shelf, rules)
    assert hashlib.sha256(again.encode()).hexdigest() == hashlib.sha256(page[0].encode()).hexdigest()


@pytest.mark.parametrize("kind", ["empty", "nothing kept", "bare"])
def test_what_is_missing_is_said(kind: str, table: pa.Table, shelf: Layout) -> None:
    """Without photos, kept ones, duplicates, cameras, dates or owners a page says "None" and charts no nothing."""
    rows = [] if kind == "empty" else table.to_pylist()
    if kind == "nothing kept":
        rows = [row for row in rows if not row["verdict"] and row["reason_stage"] == "download"]
    if kind == "bare":
        keep = {"source", "photo_id", "verdict", "split", "reason", "reason_stage"}
        rows = [
            {name: value if name in keep else None for name, value in row.items()} for row in rows if row["verdict"]
        ]
    dom = Page(report.dataset_report(pa.Table.from_pylist(rows, schema=SCHEMAS["publish"]), kind, shelf))
    said = {name for name, text in dom.by_id.items() if "None:" in text}
    assert {"duplicates", "cameras", "sizes", "owners"} <= said
    assert dom.count("figure", class_="chart") == (1 if kind == "nothing kept" else 0)
    assert ("uploads" in said) == (kind != "nothing kept")


def test_very_many_photos_make_a_small_page(table: pa.Table, shelf: Layout) -> None:
    """The page grows with the number of reasons, not with that of photos: 20,000 rows stay below 5 MB."""
    count = 20_000
    columns = table.take(np.arange(count) % table.num_rows)
    ids = pa.array([f"{index:06}" for index in range(count)])
    columns = columns.set_column(columns.schema.get_field_index("photo_id"), "photo_id", ids)
    html = report.dataset_report(columns, "many", shelf)
    assert len(html) < 5_000_000
    assert Page(html).by_id["found"] == "20,000"


def test_run_report_says_what_does_not_beat_its_baseline(
    table: pa.Table, shelf: Layout, run: tuple[Path, Path]
) -> None:
    """Figures stand beside baselines, a figure that does not win says so, and the dataset follows."""
    dom = Page(report.run_report(table, *run, shelf))
    assert dom.by_id["verdict"] == "1 of 2 figures beat their trivial baselines; these do not: Size <factor>."
    figures = dom.by_id["figure-table"]
    assert "beats it" in figures
    assert "does not beat it: the interval of the difference holds 0" in figures
    assert "<b>crops</b>" in dom.by_id["recipe"]
    assert "optimiser: lr" in dom.by_id["recipe"]
    assert dom.count("figure", class_="chart") == 4 + 6
    assert "epoch 4" in dom.by_id["training"]  # the last of four, as the log counts them
    assert dom.by_id["found"] == "76"
    assert dom.count("figure", class_="frame") == 12 + 1


def test_heat_maps_stand_beside_what_was_seen(table: pa.Table, shelf: Layout, run: tuple[Path, Path]) -> None:
    """A sample whose photo is in the pack is shown with its sixteen maps, one whose photo is gone is left out."""
    html = report.run_report(table, *run, shelf)
    assert html.count('class="pair"') == 1
    assert "a crop · 16 of 16 patches told right" in html


def test_examples_are_the_best_and_the_worst(run: tuple[Path, Path]) -> None:
    """No crop overlaps better than the first example nor worse than the worst, and no photo is shown twice."""
    shown = rectangles.examples(*run)
    columns = rectangles.read_predictions(run[0])
    iou = rectangles.overlap(
        *(rectangles.corners(columns, n) for n in (rectangles.TRUE_COLUMNS, rectangles.PREDICTED_COLUMNS))
    )
    crops = iou[columns["is_crop"]]
    assert shown[0].iou == crops.max()
    assert min(each.iou for each in shown if each.kind == "worst") == crops.min()
    assert len({each.row["photo_id"] for each in shown}) == len(shown)


def test_artifact_pictures_are_small(table: pa.Table, shelf: Layout, run: tuple[Path, Path]) -> None:
    """Contact sheet and rectangles are JPEGs below 150 kB; so is the sheet of no photo at all."""
    for data in (
        thumbnails.contact_sheet_jpeg(table, shelf), thumbnails.contact_sheet_jpeg(table.slice(0, 0), shelf),
        rectangles.rectangles_jpeg(*run),
    ):  # fmt: skip
        assert len(data) < 150_000
        assert Image.open(io.BytesIO(data)).format == "JPEG"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8))
    assert len(thumbnails.within(noise, 150_000)) < 150_000


def test_tasks_leave_references(root: Layout) -> None:
    """The decorated tasks write their page below the root and return a reference that is intact."""
    rows = [photo(root, index, None) for index in range(9)]
    joined = manifest.write_rows(root, "publish", rows)
    ref = report.report_dataset.fn(joined, "crops")
    assert manifest.intact(root, ref)
    assert ref.path == f"stages/report/{ref.sha256}.html"


def test_run_task_writes_beside_the_run(root: Layout, table: pa.Table, shelf: Layout, run: tuple[Path, Path]) -> None:
    """report_run puts report.html into the folder of the run that its evaluation.json lies in."""
    joined = manifest.write_rows(root, "publish", [photo(root, index, None) for index in range(9)])
    for source, target in ((run[0], root.run("abc123")), (run[1], root.pack("pack1"))):
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    (root.run("abc123") / "pack.json").write_text('{"rotate": "landscape"}')
    evaluated: FileRef = manifest.file_ref(root, root.run("abc123") / "evaluation.json")
    pack = PackRef(digest="pack1", sha256="", size_bytes=0, photos={})
    ref = report.report_run.fn(joined, evaluated, pack, "crops_joint on towns, version 3", "towns, version 3")
    assert ref.path == "runs/abc123/report.html"
    assert manifest.intact(root, ref)
    card = (root.run("abc123") / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ")
    assert 'datasets: ["towns, version 3"]\n' in card, "the dataset's own title"
    assert "trained by Darkroom on towns, version 3." in card
    assert "crops_joint on towns, version 3" in (root.root / ref.path).read_text()
    assert "# Crops \\| of \\*all\\*" in card
    assert "| Crop or whole, higher is better | 0.800 | 0.700 to 0.900 | 0.500 (coin) | yes |" in card
    assert "1 of 2 figures do not beat an answer that never looks at the photo." in card
    assert "It saw portraits on their side" in card
