"""Which photos a network has learnt, so that no run is tested on what the runs that it starts from know by heart.

    <run>/checkpoint/learnt.parquet   photo_key (uint64, rising): the photos of train, and those that its starts learnt

It lies two folders above a file of weights, and says whether these are all: of weights from elsewhere nobody knows what
they learnt. A key is the hash that a photo's randomness hangs on and names nobody's photo: when a photo is removed, its
key may stay. Photos are told apart by source and id; the same picture under another id is another photo here.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ConfigError

if TYPE_CHECKING:  # it imports torch, and a flow may read this module
    from models.loader import Split

log = logging.getLogger(__name__)

LEARNT = "learnt.parquet"
_COLUMN, _ARE_ALL = "photo_key", b"darkroom.are_all"


@dataclass(frozen=True, eq=False)
class Learnt:
    """The keys of the photos that weights were trained on, rising, each once; ``are_all``: there are no others."""

    keys_N: NDArray[np.uint64]
    are_all: bool

    def as_bytes(self) -> bytes:
        """The content of learnt.parquet."""
        table = pa.table({_COLUMN: self.keys_N}).replace_schema_metadata({_ARE_ALL: str(self.are_all)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, use_dictionary=False)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def file_beside(weights: Path) -> Path:
    """Where it would stand what a file of weights has learnt."""
    return weights.resolve().parent.parent / LEARNT


def learnt_by(weights: Path) -> Learnt | None:
    """What a file of weights has learnt, None where nothing is said; raises ``ConfigError`` if it cannot be read."""
    path = file_beside(weights)
    if not path.is_file():
        log.warning("%s: which photos it has learnt is not known; figures on these would flatter", weights)
        return None
    try:
        table = pq.read_table(path, partitioning=None)
        are_all = table.schema.metadata[_ARE_ALL] == b"True"
        return Learnt(table[_COLUMN].cast(pa.uint64()).to_numpy(), are_all)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} cannot be read ({type(error).__name__}): start_from needs it; train that run again"
        raise ConfigError(message, path=str(path)) from error


def learnt_together(keys_N: NDArray[np.uint64], starts: Iterable[Learnt | None]) -> Learnt:
    """What a run has learnt that trains on the photos of these keys and starts from ``starts``."""
    starts = list(starts)
    known = [keys_N, *(each.keys_N for each in starts if each is not None)]
    return Learnt(np.unique(np.concatenate(known)), all(each is not None and each.are_all for each in starts))


def refuse_learnt(starts: Mapping[Path, Learnt | None], judged: Sequence["Split"]) -> None:
    """Raise ``ConfigError`` if a start has learnt photos that the run is to be judged by."""
    for path, learnt in starts.items():
        for split in judged:
            keys_N = np.empty(0, np.uint64) if learnt is None else learnt.keys_N
            if len(rows := np.flatnonzero(np.isin(split.keys, keys_N))):
                photo = f"{split.sources[rows[0]]}/{split.photo_ids[rows[0]]}"
                message = (
                    f"{len(rows)} of {len(split)} photos of {split.name}, such as {photo}, were learnt by {path}, and"
                    " figures on them would flatter: start from a run with the same splits, or from none"
                )
                raise ConfigError(message, key="start_from", start=str(path), split=split.name, photos=len(rows))
