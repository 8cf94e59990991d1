"""What a trained model says of a person's own photos: a table, and a picture of each answer.

The photos stay where they are: nothing of them enters a dataset. A photo that cannot be read is a row with a reason.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from prefect import task

from models.frames import PackSpec
from models.recipes import from_dict
from models.specs import Recipe
from storage import manifest
from storage.layout import Layout, drafting, layout, write_bytes
from storage.records import FileRef, Record
from tasks import caching, web
from tasks.errors import ConfigError
from tasks.fitting import run_fit
from tasks.pack import Part, check_space, frames, write_card
from tasks.pages import answers
from tasks.pages.templating import templates
from tasks.pages.thumbnails import data_uri, jpeg
from tasks.pictures import imaging
from tasks.pictures.containers import blocks_of
from tasks.pictures.exif import facts
from tasks.pictures.hashing import turned_boxes
from tasks.pictures.imaging import Pixels
from tasks.rotate import RotateMode, plan
from tasks.sources.imports.files import Walk, read_plain, readable

LOG = logging.getLogger(__name__)
SPLIT = "photos"  # of the pack that ``models/predicting.py`` reads
SOURCE = "files"
QUARTER_TURN = 8  # EXIF: a portrait photo on its side, for a run that does not tell how its photos were turned
MODES: tuple[RotateMode, ...] = get_args(RotateMode)
LONG_PX = 960  # of a photo as it is drawn
SHOWN = 300  # photos on the page; the folder has a picture of each
UNREADABLE = (OSError, ValueError, imaging.BadImage)
RECTANGLES = ("pred_", "closed_")


class PhotoFile(Record):
    """A photo of a person's own: its path within the folder that was named, percent-encoded, and its digest."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """The path within the folder."""
        return os.fsdecode(unquote_to_bytes(self.path))

    @property
    def photo_id(self) -> str:
        """The path as text that can be stored."""
        return readable(self.name)


class Predicted(Record):
    """The answers: a row a photo, a picture of each that could be read, and a page with the first of them."""

    digest: str
    photos: int
    unreadable: int
    table: FileRef
    page: FileRef


def listed(photos: Path) -> tuple[Path, list[PhotoFile]]:
    """The folder that ``photos`` is or lies in, and its pictures by name; raises ConfigError if there are none."""
    try:
        place = photos.expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # missing; a link to itself or an unknown ~user; a zero byte
        raise ConfigError(f"nothing can be found at {str(photos)!r}: name a photo or a folder of photos") from error
    if not place.is_dir() and not place.is_file():
        raise ConfigError(f"{str(place)!r} is no plain file: name a photo or a folder of photos")
    folder = place if place.is_dir() else place.parent
    names = sorted(Walk(folder)) if place.is_dir() else [place.name]
    if not names:
        raise ConfigError(f"{str(place)!r} holds no photos: name a photo or a folder of photos")
    return folder, [PhotoFile(path=quote(os.fsencode(name)), sha256=_sha256(folder / name)) for name in names]


def _sha256(path: Path) -> str:
    """Of a plain file; of one that cannot be read, or is none, nothing."""
    try:
        return hashlib.sha256(read_plain(str(path), web.LIMITS.body_bytes)).hexdigest()
    except (OSError, ValueError):
        return ""


class Reader:
    """Decodes photos to the frames of a recipe; keeps why one could not be read, and how each was turned."""

    def __init__(self, folder: Path, files: Sequence[PhotoFile], spec: PackSpec, rotate: RotateMode | None) -> None:
        self.paths = {file.photo_id: str(folder / file.name) for file in files}
        self.spec, self.rotate = spec, rotate
        self.sha256s = {file.photo_id: file.sha256 for file in files}
        self.reasons: dict[str, str] = {}
        self.turns: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, row: dict[str, Any]) -> list[Pixels]:
        """The frames of the photo ``row`` (photo_id); black ones for a photo with a reason."""
        photo = row["photo_id"]
        try:
            data, net_op, turn = self.opened(photo)
            found = frames(data, net_op, self.spec)
        except UNREADABLE as error:
            found, turn = self.black(), 1
            self.refuse(photo, error)
        with self._lock:
            self.turns[photo] = turn
        return found

    def refuse(self, photo: str, error: Exception) -> None:
        """Keep why a photo could not be read, or its answer not be drawn."""
        with self._lock:
            self.reasons[photo] = error.reason if isinstance(error, imaging.BadImage) else f"unreadable: {error}"

    def opened(self, photo: str) -> tuple[bytes, int, int]:
        """The bytes of a photo, the orientation to decode it in, and the turn that this has beyond its own EXIF one.

        Raises ValueError for other bytes than those that were listed: answers are kept and removed by their digests.
        """
        data = read_plain(self.paths[photo], web.LIMITS.body_bytes)
        if hashlib.sha256(data).hexdigest() != self.sha256s[photo]:
            raise ValueError("it changed since it was listed")
        width, height = imaging.stored_size(data)
        orientation = facts(blocks_of(data)).orientation or 1
        net_op = self.turned(width, height, orientation, self.sha256s[photo])
        return data, net_op, imaging.compose(imaging.invert(orientation), net_op)

    def turned(self, width: int, height: int, orientation: int, key: str) -> int:
        """The orientation in which the network is to see a photo of this size as stored: as it saw such in training.

        ``key`` decides to which side a portrait falls.
        """
        if self.rotate is not None:
            return plan(width, height, orientation, self.rotate, key).op
        width, height = imaging.upright_size(width, height, orientation)
        is_laid = height > width and self.spec.frame_width > self.spec.frame_height
        return imaging.compose(orientation, QUARTER_TURN) if is_laid else orientation

    def black(self) -> list[Pixels]:
        """Frames in the place of a photo that could not be read."""
        sizes = [(self.spec.frame_height, self.spec.frame_width)]
        if self.spec.detail_height and self.spec.detail_width:
            sizes.append((self.spec.detail_height, self.spec.detail_width))
        return [np.zeros((*size, 3), np.uint8) for size in sizes]

    def small(self, photo: str) -> Image.Image:
        """The photo as it is looked at, upright in its own orientation."""
        data, net_op, turn = self.opened(photo)
        size = imaging.upright_size(*imaging.stored_size(data), net_op)
        scale = min(1.0, LONG_PX / max(size))
        width, height = (max(1, round(side * scale)) for side in size)
        pixels = imaging.decode_upright(data, net_op, min_height=height, min_width=width)
        upright = imaging.make_upright(imaging.resize_area(pixels, height, width), imaging.invert(turn))
        return Image.fromarray(np.ascontiguousarray(upright))


def write_pack(draft: Path, files: Sequence[PhotoFile], reader: Reader) -> None:
    """Make the folder ``draft`` a pack of one split of ``files``."""
    names = [file.photo_id for file in files]
    rows = pa.table({"source": [SOURCE] * len(names), "photo_id": names, "owner_id": [""] * len(names)})
    part = Part(draft, SPLIT, rows, reader.spec)
    check_space(draft, part.missing_bytes, f"{len(names):,} photos as {reader.spec}")
    part.write_rows()
    part.fill(reader)
    write_card(draft, reader.spec, [part])


def own_orientation(table: pa.Table, turns: dict[str, int]) -> pa.Table:
    """``table`` with its rectangles in each photo's own orientation, and net_turn, which led to the network's."""
    back = np.array([imaging.invert(turns[name]) for name in table["photo_id"].to_pylist()], np.intp)
    for prefix in RECTANGLES:
        edges = [f"{prefix}{edge}" for edge in ("x1", "x2", "y1", "y2")]
        if edges[0] in table.column_names:
            turned = turned_boxes(np.stack([table[name].to_numpy() for name in edges], axis=1), back)
            for name, values in zip(edges, turned.T, strict=True):
                table = table.set_column(table.column_names.index(name), name, pa.array(values))
    net = pa.array([turns[name] for name in table["photo_id"].to_pylist()], pa.int8())
    return table.append_column("net_turn", net)


def with_reasons(table: pa.Table, sha256s: dict[str, str], reasons: dict[str, str]) -> pa.Table:
    """``table`` with the columns ``sha256``, of the file, by which a removal finds it, and ``reason``; what the network
    said of a photo that it never saw is null."""
    photos = table["photo_id"].to_pylist()
    is_read = pa.array([photo not in reasons for photo in photos])
    said = [name for name in table.column_names if name not in {"source", "photo_id", "sample", "net_turn"}]
    columns = {name: table[name] for name in ("source", "photo_id", "net_turn")}
    columns["sha256"] = pa.array([sha256s[photo] or None for photo in photos], pa.string())
    columns |= {name: pc.if_else(is_read, table[name], pa.scalar(None, table[name].type)) for name in said}
    return pa.table({**columns, "reason": pa.array([reasons.get(photo) for photo in photos], pa.string())})


@task(**caching.stage("predict", retries=0))
def predict(
    folder: str, files: list[PhotoFile], run_id: str, weights: FileRef, evaluation: FileRef | None,
    rotate: RotateMode | None, title: str,
) -> Predicted:  # fmt: skip
    """Answers of the run ``run_id`` for ``files`` below ``folder``; ``weights`` stand for what was trained.

    ``evaluation``: the run's, with the threshold and the temperatures that it chose. ``rotate``: how the photos were
    turned that the run learnt from.
    """
    where = layout()
    recipe = recipe_of(where, run_id)
    inputs = {"files": files, "weights": weights, "evaluation": evaluation, "rotate": rotate, "title": title}
    digest = caching.digest("predict", inputs)[:16]
    reader, found = Reader(Path(folder), files, recipe.pack, rotate), where.prediction(digest)
    with drafting(found.parent) as draft:
        draft.mkdir()
        table = answered(draft / "work", files, reader, recipe, run_id, evaluation)
        shown = draw(draft / "pictures", files, table.to_pylist(), reader, recipe.system.kind)
        rows = with_reasons(table, reader.sha256s, reader.reasons)
        pq.write_table(rows, draft / "predictions.parquet", compression="zstd")
        page = templates().get_template("predictions.html.j2")
        context = {"title": title, "run_id": run_id, "recipe": recipe, "shown": shown, "photos": len(files)}
        context |= {"unreadable": len(reader.reasons), "is_evaluated": evaluation is not None, "rotate": rotate}
        write_bytes(draft / "report.html", page.render(context).encode())
        shutil.rmtree(found, ignore_errors=True)  # a damaged one, or the cache would have served it
        os.rename(draft, found)
    LOG.info("predicted=%d unreadable=%d with run %s", rows.num_rows, len(reader.reasons), run_id)
    return Predicted(
        digest=digest, photos=rows.num_rows, unreadable=len(reader.reasons),
        table=manifest.file_ref(where, found / "predictions.parquet"),
        page=manifest.file_ref(where, found / "report.html"),
    )  # fmt: skip


def answered(
    work: Path, files: Sequence[PhotoFile], reader: Reader, recipe: Recipe, run_id: str, evaluation: FileRef | None
) -> pa.Table:
    """The network's answers, one row a photo, by way of a pack in the folder ``work``, which is gone afterwards."""
    where = layout()
    work.mkdir()
    write_pack(work, files, reader)
    request = {"run_id": run_id, "pack_dir": str(work), "recipe": recipe.as_dict()}
    run_fit("predict", work, request | {"trained": str(where.run(run_id))}, lambda event: None)
    table = own_orientation(pq.read_table(work / "answers.parquet"), reader.turns)
    if "called_crop" in table.column_names:
        threshold = crop_threshold(where, evaluation)
        table = table.append_column("crop_threshold", pa.array([threshold] * table.num_rows))
    shutil.rmtree(work)
    return table


def crop_threshold(where: Layout, evaluation: FileRef | None) -> float:
    """The probability from which on a run calls a photo cropped: what its evaluation chose, or one half."""
    decisions = json.loads((where.root / evaluation.path).read_bytes())["decisions"] if evaluation else {}
    logit = decisions.get("threshold", 0.0) / decisions.get("temperature_crop", 1.0)
    return float(np.exp(-np.logaddexp(0.0, -logit)))


def file_of(where: Layout, run_id: str, name: str) -> FileRef | None:
    """A file of a run that answers depend on beside its weights; None if it has none of that name."""
    file = where.run(run_id) / name
    return manifest.file_ref(where, file) if file.is_file() else None


def rotate_of(where: Layout, run_id: str) -> RotateMode | None:
    """How the photos were turned that a run learnt from, as its pack.json says; None and a warning if it does not."""
    try:
        noted = json.loads((where.run(run_id) / "pack.json").read_bytes())["rotate"]
    except (OSError, ValueError, KeyError, TypeError):
        noted = None
    found = next((mode for mode in MODES if mode == noted), None)
    if found is None:
        LOG.warning("run %s does not tell how its photos were turned: wide frames show portraits on their side", run_id)
    return found


def recipe_of(where: Layout, run_id: str) -> Recipe:
    """The recipe that a finished run was trained by; raises ConfigError if there is none, or nobody can read it."""
    card = where.run(run_id) / "train.json"
    try:
        return from_dict(json.loads(card.read_bytes())["recipe"])
    except FileNotFoundError:
        raise ConfigError(
            f"there is no finished run {run_id!r}: its folder {str(card.parent)!r} lacks train.json"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the run {run_id!r} cannot be used: its {str(card)!r} tells no whole recipe of this version "
            f"({type(error).__name__}: {error}); train again"
        ) from error


def draw(
    folder: Path, files: Sequence[PhotoFile], rows: list[dict[str, Any]], reader: Reader, kind: str
) -> list[dict[str, Any]]:  # fmt: skip
    """Write a picture of each answer into ``folder``; what the page shows of the first ones.

    A photo whose picture cannot be drawn, as it is no longer what it was, gets its reason from that.
    """
    folder.mkdir()
    shown = []
    for number, (file, row) in enumerate(zip(files, rows, strict=True), start=1):
        photo, picture = file.photo_id, None
        if photo not in reader.reasons:
            try:
                picture = jpeg(answers.DRAWN[kind](reader.small(photo), row))
            except UNREADABLE as error:
                reader.refuse(photo, error)
            else:
                write_bytes(folder / f"{number:05d}-{file.sha256[:8]}.jpg", picture)
        if number <= SHOWN:
            shown.append({"name": photo, "reason": reader.reasons.get(photo), "uri": picture and data_uri(picture)})
    return shown
