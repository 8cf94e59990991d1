"""Batches of photos: read ahead in order, in memory that is used again but never under anybody's eyes."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models.errors import ConfigError
from models.loader import FrameStore, Split, settle
from models.reading import Buffers, read_ahead

CPU = torch.device("cpu")


def split_of(photos: int, with_detail: bool = False) -> Split:
    """Photos whose frames are random numbers, the details being other ones."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (photos, 4, 6, 3), dtype=np.uint8)
    details = rng.integers(0, 256, (photos, 8, 12, 3), dtype=np.uint8) if with_detail else None
    names = [f"{number:03d}" for number in range(photos)]
    return Split("train", frames, details, ["s"] * photos, names, [f"label {name}" for name in names])


def frame_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("frames")]


@pytest.mark.parametrize("with_detail", [False, True])
def test_a_stream_gives_the_photos_that_were_asked_for(with_detail: bool) -> None:
    """Frames, details, keys and labels of each batch are those of its rows, in their order, also of the last one."""
    split = split_of(23, with_detail)
    store = FrameStore(split, CPU, needs_detail=with_detail)
    batches = np.array_split(np.random.default_rng(1).permutation(23), 5)
    found = list(store.stream(batches))
    assert len(found) == 5
    for rows, batch in zip(batches, found, strict=True):
        assert np.array_equal(batch.rows_B, rows)
        assert np.array_equal(batch.frame_BCHW.numpy(), split.frames[rows].transpose(0, 3, 1, 2))
        assert np.array_equal(batch.keys_B, split.keys[rows])
        assert batch.labels == [split.labels[row] for row in rows]
        if split.details is None:
            assert batch.detail_BCHW is None
        else:
            assert batch.detail_BCHW is not None
            assert np.array_equal(batch.detail_BCHW.numpy(), split.details[rows].transpose(0, 3, 1, 2))


def test_part_of_a_batch_is_a_batch() -> None:
    """``take`` chooses by the place in the batch, in any order, for everything that a photo has."""
    split = split_of(9, with_detail=True)
    whole = FrameStore(split, CPU, needs_detail=True).batch(np.array([7, 2, 5]))
    part = whole.take(np.array([2, 0, 0]))
    assert len(part) == 3
    assert part.rows_B.tolist() == [5, 7, 7]
    assert part.keys_B.tolist() == split.keys[[5, 7, 7]].tolist()
    assert part.labels == ["label 005", "label 007", "label 007"]
    assert whole.detail_BCHW is not None
    assert part.detail_BCHW is not None
    assert torch.equal(part.frame_BCHW, whole.frame_BCHW[[2, 0, 0]])
    assert torch.equal(part.detail_BCHW, whole.detail_BCHW[[2, 0, 0]])


def test_no_batches_are_no_photos() -> None:
    """An empty stream ends at once."""
    assert list(FrameStore(split_of(3), CPU).stream([])) == []


@pytest.mark.parametrize(
    ("frames", "details", "resident"),
    [(3, 0, "-- --"), (5, 0, "F- --"), (6, 0, "F- F-"), (6, 5, "FD F-"), (6, 6, "FD FD")],
)
def test_stores_share_one_room_and_frames_come_first(frames: int, details: int, resident: str) -> None:
    """In the room of so many frames and details, of 4 and of 2 photos: what one store took, the other lacks."""
    stores = [FrameStore(split_of(photos, with_detail=True), CPU, needs_detail=True) for photos in (4, 2)]
    frame_bytes, detail_bytes = (source.reader.frame_bytes for source in stores[0].sources)
    settle(stores, frames * frame_bytes + details * detail_bytes)
    found = [[source.resident_NHWC is not None for source in store.sources] for store in stores]
    assert found == [[sign != "-" for sign in store] for store in resident.split()]


def test_details_that_were_not_packed_are_refused() -> None:
    """By name, before anything is drawn."""
    with pytest.raises(ConfigError, match="'train' was packed without details"):
        FrameStore(split_of(3), CPU, needs_detail=True)


def test_memory_is_used_again_only_once_nobody_sees_it() -> None:
    """A tensor, or any view of one, keeps its memory; when the last is gone the next one gets it."""
    buffers = Buffers(is_pinned=False)
    first = buffers.take((2, 3))
    view, address = first.view(6)[1:], first.data_ptr()
    del first
    other = buffers.take((2, 3))
    assert other.data_ptr() != address
    del view
    assert buffers.take((3, 2)).data_ptr() == address


def test_a_long_stream_needs_no_more_memory_than_a_short_one() -> None:
    """A hundred batches go through the memory of those that are read ahead."""
    store = FrameStore(split_of(40), CPU)
    batches = [np.arange(start, start + 8) for start in range(0, 32)] * 4
    assert len({batch.frame_BCHW.data_ptr() for batch in store.stream(batches)}) <= 8


def test_threads_read_ahead_but_not_without_end() -> None:
    """Results come in the order of the jobs, and at most ``ahead`` more were begun than were asked for."""
    begun: list[int] = []

    def read(job: int) -> int:
        begun.append(job)
        return job * job

    for number, found in enumerate(read_ahead(read, iter(range(50)), ahead=3, readers=2)):
        assert found == number * number
        assert len(begun) <= number + 1 + 3
    assert sorted(begun) == list(range(50))


def test_an_error_of_a_thread_reaches_who_asks() -> None:
    """In its turn: what came before it is delivered, and no thread stays."""

    def read(job: int) -> int:
        if job == 4:
            raise OSError("gone")
        return job

    found: list[int] = []
    with pytest.raises(OSError, match="gone"):
        found.extend(read_ahead(read, range(9), ahead=2, readers=2))
    assert found == [0, 1, 2, 3]
    assert frame_threads() == []


@pytest.mark.parametrize("how", ["close", "forget", "throw"])
def test_an_abandoned_stream_leaves_no_thread(how: str) -> None:
    """Whoever stops in the middle of an epoch, for whatever reason, leaves nothing behind."""
    stream: Iterator[object] | None = FrameStore(split_of(40), CPU).stream([np.arange(8)] * 20)
    assert stream is not None
    next(stream)
    assert frame_threads() != []
    if how == "close":
        stream.close()  # type: ignore[attr-defined]
    elif how == "throw":
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    stream = None
    assert frame_threads() == []
