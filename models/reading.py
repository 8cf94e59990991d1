"""Frames from a file into memory that is used again, ahead of whoever wants them.

Files are read, not mapped: ``numpy.take`` from a map moves twice as much a second, but 7 GB/s are enough (``gather`` of
``tests/bench/loading.py``), and where somebody cuts the file short it is an error instead of a dead process.

Shapes: N frames of an array, B of a batch, H x W x C each.
"""

import hashlib
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import PackDamaged

READERS = min(4, max(1, (os.cpu_count() or 1) // 4))  # threads; one fills 7 GB/s
Rows = NDArray[np.int64]
Frames = NDArray[np.uint8]
Job = TypeVar("Job")
Read = TypeVar("Read")


class Buffers:
    """Memory for batches, used again once nobody sees the tensors that were made of it.

    Fresh memory of that size costs seven times as much as filling it, since the system clears each page.
    """

    def __init__(self, is_pinned: bool) -> None:
        self.is_pinned = is_pinned
        self._free: deque[Tensor] = deque()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A uint8 tensor of that shape with whatever stood there."""
        size = math.prod(shape)
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = torch.empty(0, dtype=torch.uint8)
        if buffer.numel() < size:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self.is_pinned)
        seen = buffer.numpy()[:size]  # lives as long as any tensor that shares its memory
        weakref.finalize(seen, self._free.append, buffer).atexit = False
        return torch.from_numpy(seen).view(shape)


class FrameReader:
    """Reads frames of one array into buffers; those of a file are compared with their digests.

    They are when they are first read, and again once the file's size or times changed: its content may have, too.
    """

    def __init__(self, frames: Frames, sha256s: list[bytes] | None, is_pinned: bool = False) -> None:
        self.frames, self.sha256s, self.buffers = frames, sha256s, Buffers(is_pinned)
        self._is_checked_N = np.full(len(frames), sha256s is None)
        self._file: int | None = None
        if isinstance(frames, np.memmap):
            self._path, self._offset = str(frames.filename), frames.offset
            self._file = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._stamp = _stamp(self._file)

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        return math.prod(self.frames.shape[1:])

    def read(self, rows_B: Rows) -> Tensor:
        """Frames [B, H, W, 3], uint8, in the order of ``rows_B``; raises ``PackDamaged``."""
        frame_BHWC = self.buffers.take((len(rows_B), *self.frames.shape[1:]))
        into = frame_BHWC.numpy()
        if self._file is None:
            np.take(self.frames, rows_B, axis=0, out=into, mode="clip")
            return frame_BHWC
        if (stamp := _stamp(self._file)) != self._stamp:
            self._is_checked_N[:] = self.sha256s is None
            self._stamp = stamp
        for place in np.argsort(rows_B, kind="stable"):  # as they lie in the file
            self._read_one(int(rows_B[place]), into[place])
        return frame_BHWC

    def _read_one(self, row: int, into_HWC: Frames) -> None:
        assert self._file is not None
        wanted, at = into_HWC.data.cast("B"), self._offset + row * self.frame_bytes
        while wanted:
            got = os.preadv(self._file, [wanted], at)
            if got == 0:
                raise self._changed(row)
            wanted, at = wanted[got:], at + got
        if not self._is_checked_N[row]:
            if self.sha256s is not None and hashlib.sha256(into_HWC.data).digest() != self.sha256s[row]:
                raise self._changed(row)
            self._is_checked_N[row] = True

    def _changed(self, row: int) -> PackDamaged:
        message = f"frame {row} of {self._path} is damaged or was changed since it was packed: pack the snapshot again"
        return PackDamaged(message, path=str(self._path), row=row)


def _stamp(file: int) -> tuple[int, ...]:
    """What changes when somebody writes to an open file."""
    found = os.fstat(file)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_ahead(
    read: Callable[[Job], Read], jobs: Iterable[Job], ahead: int, readers: int = READERS
) -> Generator[Read, None, None]:
    """``read`` of each job, in order, by threads that are ``ahead`` jobs before the one that is asked for.

    What ``read`` raises is raised here; the threads end with the iterator, however that ends.
    """
    with ThreadPoolExecutor(readers, thread_name_prefix="frames") as pool:
        waiting: deque[Future[Read]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(read, job))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
