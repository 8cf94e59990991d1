"""True and predicted crop rectangles on whole test frames: which samples to show, and how they are drawn."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from tasks.pages.figures import PALETTE
from tasks.pages.thumbnails import GAP_PX, SHEET_BYTES, data_uri, jpeg, shrink, within

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
TRUE_COLUMNS, PREDICTED_COLUMNS = ("x1", "x2", "y1", "y2"), ("pred_x1", "pred_x2", "pred_y1", "pred_y2")
FRAME_HEIGHT_PX = 240
EDGE_PX = 3


class Box(NamedTuple):
    """A rectangle as fractions of the frame: x to the right, y down."""

    x: float
    y: float
    width: float
    height: float


class Example(NamedTuple):
    """One test sample to look at. ``frame`` is the whole photo, as the network's input was cut from it."""

    kind: str
    row: Row
    iou: float
    frame: Image.Image
    true: Box
    predicted: Box

    @property
    def uri(self) -> str:
        """The frame as a data URI."""
        return data_uri(jpeg(shrink(self.frame, FRAME_HEIGHT_PX)))


def read_predictions(run_dir: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of a run's predictions on the split that it was evaluated on."""
    split = json.loads((run_dir / "evaluation.json").read_text())["split"]
    table = pq.read_table(run_dir / "predictions.parquet", partitioning=None)
    table = table.filter(pc.field("split") == split)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def corners(columns: dict[str, npt.NDArray[Any]], names: tuple[str, ...]) -> Floats:
    """The four edges ``names`` side by side, (N, 4): x1, x2, y1, y2."""
    return np.stack([columns[name].astype(np.float64) for name in names], axis=1)


def overlap(true: Floats, predicted: Floats) -> Floats:
    """Intersection over union of rectangles (x1, x2, y1, y2), (N,); an inverted rectangle is empty."""
    low = np.maximum(true[:, 0::2], predicted[:, 0::2])
    high = np.minimum(true[:, 1::2], predicted[:, 1::2])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [np.clip(each[:, 1::2] - each[:, 0::2], 0, None).prod(axis=1) for each in (true, predicted)]
    union = areas[0] + areas[1] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)


def choose(columns: dict[str, npt.NDArray[Any]], iou: Floats, each: int, random: int) -> list[tuple[str, int]]:
    """(kind, sample) of the best, median and worst crops, and of any samples; no photo stands there twice."""
    photos = [f"{source}/{photo}" for source, photo in zip(columns["source"], columns["photo_id"], strict=True)]
    crops = np.flatnonzero(columns["is_crop"])
    ranked = crops[np.argsort(-iou[crops], kind="stable")].tolist()
    middle = sorted(ranked, key=lambda sample: abs(iou[sample] - np.median(iou[crops])))
    digests = [
        hashlib.sha256(f"{photo}/{n}".encode()).digest() for photo, n in zip(photos, columns["sample"], strict=True)
    ]
    drawn = sorted(range(len(photos)), key=digests.__getitem__)
    chosen: list[tuple[str, int]] = []
    seen: set[str] = set()
    for kind, candidates, count in (
        ("best", ranked, each), ("worst", ranked[::-1], each), ("median", middle, each), ("random", drawn, random),
    ):  # fmt: skip
        for sample in candidates:
            if count and photos[sample] not in seen:
                seen.add(photos[sample])
                chosen.append((kind, sample))
                count -= 1
    order = ("best", "median", "worst", "random")
    return sorted(chosen, key=lambda pair: order.index(pair[0]))


def examples(run_dir: Path, pack_dir: Path, each: int = 2, random: int = 6) -> list[Example]:
    """Samples of a run with their whole frames from the pack; none where the run predicted nothing."""
    columns = read_predictions(run_dir)
    if not len(columns["sample"]):
        return []
    frames = frames_by_photo(pack_dir, columns["split"][0])
    true, predicted = corners(columns, TRUE_COLUMNS), corners(columns, PREDICTED_COLUMNS)
    iou = overlap(true, predicted)
    shown = []
    for kind, sample in choose(columns, iou, each, random):
        row = {name: values[sample] for name, values in columns.items()}
        frame = Image.fromarray(np.ascontiguousarray(frames[row["source"], row["photo_id"]]))
        shown.append(Example(kind, row, float(iou[sample]), frame, box(true[sample]), box(predicted[sample])))
    return shown


def frames_by_photo(pack_dir: Path, split: str) -> dict[tuple[str, str], npt.NDArray[np.uint8]]:
    """The frames of a split, height x width x 3, by (source, photo_id); nothing is read before it is looked at."""
    frames = np.load(pack_dir / f"{split}.npy", mmap_mode="r")
    keys = pq.read_table(pack_dir / f"{split}.parquet", columns=["source", "photo_id"], partitioning=None)
    return {(row["source"], row["photo_id"]): frame for row, frame in zip(keys.to_pylist(), frames, strict=True)}


def box(edges: Floats) -> Box:
    """(x1, x2, y1, y2) as a box inside the frame."""
    x1, x2, y1, y2 = np.clip(edges, 0.0, 1.0).tolist()
    return Box(x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1))


def rectangles_jpeg(run_dir: Path, pack_dir: Path, columns: int = 3, cell_width_px: int = 300) -> bytes:
    """Best, median, worst and random test frames with their true (green) and predicted (red) boxes, below 150 kB."""
    shown = examples(run_dir, pack_dir, each=1, random=3)
    tiles = [tile(example, cell_width_px) for example in shown] or [Image.new("RGB", (cell_width_px, GAP_PX), "white")]
    wide, high = tiles[0].width + GAP_PX, tiles[0].height + GAP_PX
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (min(columns, len(tiles)) * wide + GAP_PX, rows * high + GAP_PX), "white")
    for index, each in enumerate(tiles):
        sheet.paste(each, (GAP_PX + index % columns * wide, GAP_PX + index // columns * high))
    return within(sheet, SHEET_BYTES)


def tile(example: Example, width_px: int) -> Image.Image:
    """The frame with both rectangles and one line of text below, whose colours are their key."""
    height_px = round(example.frame.height * width_px / example.frame.width)
    canvas = Image.new("RGB", (width_px, height_px + 20), "white")
    canvas.paste(example.frame.resize((width_px, height_px), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(canvas)
    for area, colour in ((example.true, PALETTE["true"]), (example.predicted, PALETTE["predicted"])):
        left, top = area.x * (width_px - 1), area.y * (height_px - 1)
        right, bottom = left + area.width * (width_px - 1), top + area.height * (height_px - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=EDGE_PX)
    left = 2.0
    for words, colour in (
        (f"{example.kind}, IoU {example.iou:.2f}:  ", "black"),
        (f"true size {example.row['size_factor']:.2f}  ", PALETTE["true"]),
        (f"predicted {example.row['pred_size_factor']:.2f}", PALETTE["predicted"]),
    ):
        draw.text((left, height_px + 4), words, fill=colour, font_size=12)
        left += draw.textlength(words, font_size=12)
    return canvas
