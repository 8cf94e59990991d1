"""Decode the photos of a snapshot once, to what training needs: upright uint8 frames of one size, a file a split.

A recipe may want larger frames beside them, from the same decode, and more than photos that are squeezed to a frame:
see ``odd_pictures``. The folder that results is what ``models/loader.py`` reads; its format is described there.

A pack grows in a draft that its digest names, photo by photo, each with the digests of its frames. Whoever is killed
and starts again compares what lies there and goes on behind the last photo that is whole; nobody takes a draft for a
pack. Its rows are there from the start, so that a removal of a photo finds the draft, and so does whoever collects
garbage. Photos are decoded on threads: JPEG, PNG and WEBP decoders all let others run meanwhile, and processes were no
faster (12 megapixels to 2048 and 576 pixels on two cores: 4.1 to 3.8 PNG a second, 4.4 to 3.6 WEBP).
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task

from models.frames import PackSpec, Picture
from storage import blobs, manifest, removals
from storage.layout import Layout, filling, layout, replacing, write_bytes
from storage.records import SPLITS, ManifestRef, PackRef
from tasks import caching
from tasks.errors import DarkroomError, DiskFull, TooFewPhotos
from tasks.pictures import imaging, odd_pictures
from tasks.pictures.imaging import Pixels

MIN_PHOTOS = {"train": 32, "val": 8, "test": 8}
THREADS = max(2, os.cpu_count() or 2)
READ_AHEAD = 2 * THREADS  # photos whose frames wait to be written
ROW_BYTES = 256  # of a photo, beside its frames
DIGEST_BYTES = 32
POLL_S = 0.5
VERSION = 2
DRAWN: dict[Picture, Callable[[Pixels], Pixels]] = {
    "photo": lambda pixels: pixels,
    "no_background": odd_pictures.without_background,
    "contours": odd_pictures.contours,
}
Draw = Callable[[dict[str, Any]], list[Pixels]]  # from a row to its frames, one of each of ``sizes``
LOG = logging.getLogger(__name__)


def check_enough(counts: dict[str, int], what: str) -> None:
    """Raise TooFewPhotos unless every split has the photos that training and an honest evaluation need."""
    short = {split: least for split, least in MIN_PHOTOS.items() if counts.get(split, 0) < least}
    if short:
        have = ", ".join(f"{counts.get(split, 0):,} in {split}" for split in SPLITS)
        need = ", ".join(f"{least:,} in {split}" for split, least in short.items())
        raise TooFewPhotos(
            f"{what} has {have}: too few to train on, which takes at least {need}. "
            "Widen its queries or its filter, refresh, and train again"
        )


def sizes(spec: PackSpec) -> list[tuple[int, int]]:
    """(height, width) of the frames of a photo: the frame and, where there is one, the detail."""
    detail = [(spec.detail_height, spec.detail_width)] if spec.detail_height and spec.detail_width else []
    return [(spec.frame_height, spec.frame_width), *detail]


def frames(data: bytes, net_op: int, spec: PackSpec) -> list[Pixels]:
    """The photo in the file ``data``, decoded once, turned by ``net_op``, RGB, in a frame of each of ``sizes``."""
    size = imaging.upright_size(*imaging.stored_size(data), net_op)
    inner = [odd_pictures.inner_size(*size, *each, spec.pad_beyond) for each in sizes(spec)]
    height, width = (max(sides) for sides in zip(*inner, strict=True))
    pixels = imaging.decode_upright(data, net_op, min_height=height, min_width=width)
    drawn = [DRAWN[spec.picture](imaging.resize_area(pixels, *each)) for each in inner]
    return [odd_pictures.pad(each, *whole) for each, whole in zip(drawn, sizes(spec), strict=True)]


@task(**caching.stage("pack"))
def pack(
    selection: ManifestRef,
    frame_height: int,
    frame_width: int,
    detail_height: int | None = None,
    detail_width: int | None = None,
    pad_beyond: float | None = None,
    picture: Picture = "photo",
    rotate: str | None = None,
) -> PackRef:
    """Frames of all photos of ``selection``, as uint8 (photos, frame_height, frame_width, 3) by split.

    Details, ``pad_beyond`` and ``picture``: see ``models.frames.PackSpec``. Raises RemovedPhoto for a selection that
    holds a photo which was removed, and DiskFull before anything is decoded if there is no room for all of it.
    ``rotate``: how the dataset turned them, noted in pack.json: so must whatever is shown to what learns from them.
    """
    where = layout()
    spec = PackSpec(frame_height, frame_width, detail_height, detail_width, pad_beyond, picture)
    digest = caching.digest("pack", {"selection": selection, "rotate": rotate, **asdict(spec)})
    folder = where.pack(digest)
    with claimed(folder.with_name(f"{digest}.part")) as (draft, was_busy):
        if not (was_busy and (folder / "pack.json").is_file()):  # else another run has just made it
            with undone(draft):
                write_pack(where, draft, manifest.read(where, selection), spec, rotate)
                shutil.rmtree(folder, ignore_errors=True)  # a damaged one, or the cache would have served it
                os.rename(draft, folder)
    ref = pack_ref(folder, digest)
    LOG.info("packed %s as %s", " ".join(f"{split}={n}" for split, n in ref.photos.items()), spec)
    return ref


def pack_ref(folder: Path, digest: str) -> PackRef:
    """A reference to the pack in ``folder``."""
    card = json.loads((folder / "pack.json").read_bytes())
    return PackRef(
        digest=digest,
        sha256=manifest.sha256_file(folder / "pack.json"),
        size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
        photos={split: entry["photos"] for split, entry in card["splits"].items()},
    )


def check_allowed(where: Layout, folder: Path) -> None:
    """Raise RemovedPhoto if the pack in ``folder``, come from wherever, holds a photo that was removed."""
    for rows in sorted(folder.glob("*.parquet")):
        removals.refuse(where, manifest.read_file(rows), f"the pack {str(folder)!r}")


@contextmanager
def claimed(draft: Path) -> Iterator[tuple[Path, bool]]:
    """The folder ``draft``, made if need be and ours alone; and whether somebody else had to end first."""
    was_busy = False
    while True:
        draft.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # its owner has just renamed it
            lock = os.open(draft, os.O_RDONLY)
            if _is_ours(lock, draft):
                break
            os.close(lock)
        was_busy = True
        time.sleep(POLL_S)
    try:
        yield draft, was_busy
    finally:
        with suppress(OSError):
            draft.rmdir()  # empty: another run had made the pack
        os.close(lock)


def _is_ours(lock: int, draft: Path) -> bool:
    """Whether the open folder ``lock`` could be locked and is still the one at ``draft``."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(lock).st_ino == draft.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def undone(draft: Path) -> Iterator[None]:
    """Whatever the block writes is deleted if it fails, though not if it is killed; raises DiskFull for a full disk.

    A draft with whole photos outlives a disk that is full or does not answer: the next try goes on behind them.
    """
    try:
        with filling(draft):
            yield
    except (DarkroomError, OSError) as error:
        is_of_use = isinstance(error, DiskFull | OSError) and any(map(_has_bytes, draft.glob("*.sha256")))
        if not is_of_use:
            shutil.rmtree(draft, ignore_errors=True)
        raise


def _has_bytes(file: Path) -> bool:
    return file.stat().st_size > 0


def write_pack(where: Layout, draft: Path, rows: pa.Table, spec: PackSpec, rotate: str | None) -> None:
    """Make the folder ``draft`` a whole pack of ``rows``, from whatever it has. Raises RemovedPhoto, DiskFull."""
    removals.refuse(where, rows, "what is to be packed")
    parts = [Part(draft, split, rows.filter(pc.equal(rows["split"], split)), spec) for split in SPLITS]
    check_space(draft, sum(part.missing_bytes for part in parts), f"{rows.num_rows:,} photos as {spec}")
    for part in parts:
        part.write_rows()  # before a frame: whoever deletes removed photos finds them here
    for part in parts:
        part.fill(lambda row: frames(blobs.get(where, row["blob"], row["format"]), row["net_op"], spec))
    removals.refuse(where, rows, "what was packed")  # nobody may have removed one meanwhile
    write_card(draft, spec, parts, rotate)


def write_card(draft: Path, spec: PackSpec, parts: Sequence["Part"], rotate: str | None = None) -> None:
    """Write pack.json, which makes a folder of filled ``parts`` a pack, and take away what only a draft needs."""
    entries = {part.split: part.end() for part in parts}
    card = {"version": VERSION, **asdict(spec), "rotate": rotate, "splits": entries}
    write_bytes(draft / "pack.json", (json.dumps(card, indent=1) + "\n").encode())
    for part in parts:
        part.digests.unlink()  # now, and not before: without them the next try would decode everything again


def check_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise DiskFull unless ``needed_bytes`` more fit where ``folder`` lies."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DiskFull(
            f"{what} take {needed_bytes / 1e9:,.1f} GB more at {str(folder.parent)!r}, where {free_bytes / 1e9:,.1f} "
            "are free: free some, move DARKROOM_ROOT, or choose a recipe with smaller frames"
        )


@dataclass(frozen=True)
class Part:
    """The files of one split in a draft: arrays of frames, the digests of each photo's frames, and rows."""

    draft: Path
    split: str
    rows: pa.Table
    spec: PackSpec

    @property
    def arrays(self) -> list[tuple[Path, tuple[int, int, int, int]]]:
        """The file of each of ``sizes``, and the shape of what it shall hold."""
        names = (f"{self.split}.npy", f"{self.split}.detail.npy")
        shapes = [(self.rows.num_rows, *size, 3) for size in sizes(self.spec)]
        return [(self.draft / name, shape) for name, shape in zip(names, shapes, strict=False)]

    @property
    def digests(self) -> Path:
        """Those of the frames of each photo, one after another; gone once the pack is whole."""
        return self.draft / f"{self.split}.sha256"

    @property
    def missing_bytes(self) -> int:
        """What the files will need beyond what they have."""
        has_bytes = sum(path.stat().st_size for path, _ in self.arrays if path.exists())
        needs_bytes = sum(math.prod(shape) for _, shape in self.arrays) + ROW_BYTES * len(self.rows)
        return max(0, needs_bytes - has_bytes)

    def write_rows(self, *columns: tuple[str, pa.Array]) -> Path:
        """Write ``<split>.parquet``: whose frames these are, and more ``columns``."""
        table = self.rows.select(["source", "photo_id", "owner_id"]).replace_schema_metadata(None)
        for name, values in columns:
            table = table.append_column(name, values)
        path = self.draft / f"{self.split}.parquet"
        with replacing(path) as part:  # what stands there says whose the frames are, also if the disk is full
            pq.write_table(table, part)
        return path

    def fill(self, draw: Draw) -> None:
        """Bring the arrays to their full length. (A memory map on a full disk is a bus error, no exception.)"""
        with ExitStack() as opened:
            streams = [opened.enter_context(open_array(path, shape)) for path, shape in self.arrays]
            self.digests.touch()
            digests = opened.enter_context(self.digests.open("r+b"))
            done = self.count_whole(streams, digests.read())
            for stream, (_, shape) in zip(streams, self.arrays, strict=True):
                stream.seek(done * math.prod(shape[1:]), os.SEEK_CUR)  # from the end of its header
                stream.truncate()
            digests.seek(done * DIGEST_BYTES * len(streams))
            digests.truncate()
            for photo in decoded(self.rows.slice(done), draw):
                for stream, (pixels, _) in zip(streams, photo, strict=True):
                    stream.write(pixels.data)
                    stream.flush()
                digests.write(b"".join(digest for _, digest in photo))
                digests.flush()  # behind the frames: it says that they are there

    def count_whole(self, streams: list[BinaryIO], digests: bytes) -> int:
        """How many photos from the first on have frames with the digests that were noted of them."""
        starts = [stream.tell() for stream in streams]
        sizes_bytes = [math.prod(shape[1:]) for _, shape in self.arrays]

        def is_whole(photo: int) -> bool:
            files = zip(streams, starts, sizes_bytes, strict=True)
            read = [os.pread(stream.fileno(), size, start + photo * size) for stream, start, size in files]
            noted = digests[photo * DIGEST_BYTES * len(read) :][: DIGEST_BYTES * len(read)]
            return b"".join(hashlib.sha256(frame).digest() for frame in read) == noted

        photos = range(min(self.rows.num_rows, len(digests) // (DIGEST_BYTES * len(streams))))
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(1 for _ in takewhile(bool, pool.map(is_whole, photos)))

    def end(self) -> dict[str, Any]:
        """Write the rows with the digests of their frames; the part's entry of pack.json."""
        noted = self.digests.read_bytes()
        each = [noted[start : start + DIGEST_BYTES] for start in range(0, len(noted), DIGEST_BYTES)]
        columns = [pa.array(each[number :: len(self.arrays)], pa.binary()) for number in range(len(self.arrays))]
        rows = self.write_rows(*zip(("frame_sha256", "detail_sha256"), columns, strict=False))
        names = [path.name for path, _ in self.arrays]
        return {
            "photos": self.rows.num_rows, "frames": names[0], "details": names[1] if len(names) > 1 else None,
            "rows": rows.name, "rows_sha256": manifest.sha256_file(rows),
        }  # fmt: skip


def open_array(path: Path, shape: tuple[int, ...]) -> BinaryIO:
    """The .npy file at ``path``, made if need be, behind a header that promises uint8 of that shape."""
    path.touch()
    stream = path.open("r+b")
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream


def decoded(rows: pa.Table, draw: Draw) -> Iterator[list[tuple[Pixels, bytes]]]:
    """The frames of ``rows`` in order, each with its SHA-256, drawn on threads that are READ_AHEAD photos ahead."""

    def decode(row: dict[str, Any]) -> list[tuple[Pixels, bytes]]:
        return [(pixels, hashlib.sha256(pixels.data).digest()) for pixels in draw(row)]

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[list[tuple[Pixels, bytes]]]] = deque()
        try:
            for row in rows.to_pylist():
                waiting.append(pool.submit(decode, row))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
