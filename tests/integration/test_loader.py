"""Packs on the disk: what is not as it was packed never reaches a network, and says so in one sentence."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.errors import ConfigError, PackDamaged
from models.frames import PackSpec
from models.loader import FrameStore, open_pack

CPU = torch.device("cpu")
SPEC = PackSpec(16, 24, detail_height=32, detail_width=48)
PHOTOS = 20


def sha256s(frames: np.ndarray[Any, Any]) -> list[bytes]:
    return [hashlib.sha256(frame.tobytes()).digest() for frame in frames]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pack of random frames with one split."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (PHOTOS, 16, 24, 3), dtype=np.uint8)
    details = rng.integers(0, 256, (PHOTOS, 32, 48, 3), dtype=np.uint8)
    np.save(tmp_path / "train.npy", frames)
    np.save(tmp_path / "train.detail.npy", details)
    columns = {"source": ["s"] * PHOTOS, "photo_id": [f"{n}" for n in range(PHOTOS)], "owner_id": [None] * PHOTOS}
    rows = pa.table(columns | {"frame_sha256": sha256s(frames), "detail_sha256": sha256s(details)})
    pq.write_table(rows, tmp_path / "train.parquet")
    entry = {
        "photos": PHOTOS, "frames": "train.npy", "details": "train.detail.npy", "rows": "train.parquet",
        "rows_sha256": hashlib.sha256((tmp_path / "train.parquet").read_bytes()).hexdigest(),
    }  # fmt: skip
    (tmp_path / "pack.json").write_text(json.dumps({"version": 2, **asdict(SPEC), "splits": {"train": entry}}))
    return tmp_path


def store_of(folder: Path) -> FrameStore:
    return FrameStore(open_pack(folder, SPEC, ["train"]).splits["train"], CPU, needs_detail=True)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        stream.write(data)


def test_what_was_packed_is_what_comes_out(folder: Path) -> None:
    """Frames and details by any rows, as batches and as a stream; the digest of pack.json names the pack."""
    pack = open_pack(folder, SPEC, ["train"])
    assert pack.digest == hashlib.sha256((folder / "pack.json").read_bytes()).hexdigest()
    frames, details = np.load(folder / "train.npy"), np.load(folder / "train.detail.npy")
    store = FrameStore(pack.splits["train"], CPU, needs_detail=True)
    batches = np.array_split(np.random.default_rng(1).permutation(PHOTOS), 3)
    for rows, batch in zip(batches, store.stream(batches), strict=True):
        assert batch.detail_BCHW is not None
        assert np.array_equal(batch.frame_BCHW.numpy(), frames[rows].transpose(0, 3, 1, 2))
        assert np.array_equal(batch.detail_BCHW.numpy(), details[rows].transpose(0, 3, 1, 2))
        assert torch.equal(store.batch(rows).frame_BCHW, batch.frame_BCHW)
    assert not store.is_resident


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda folder: (folder / "pack.json").unlink(), "pack.json cannot be read"),
    "an older card": (
        lambda folder: (folder / "pack.json").write_text(
            (folder / "pack.json").read_text().replace('"version": 2', '"version": 1')
        ),
        "version 1, not 2",
    ),
    "no frames": (lambda folder: (folder / "train.npy").unlink(), "split 'train' .* cannot be read"),
    "cut frames": (lambda folder: os.truncate(folder / "train.npy", 5000), "train.npy has 5,000 bytes, not"),
    "more details": (
        lambda folder: os.truncate(folder / "train.detail.npy", 10**6), "train.detail.npy has 1,000,000 bytes, not"
    ),
    "other frames": (
        lambda folder: np.save(folder / "train.npy", np.zeros((PHOTOS, 24, 16, 3), np.uint8)), "holds uint8"
    ),
    "other rows": (lambda folder: overwrite(folder / "train.parquet", 9, b"?"), "train.parquet is damaged"),
}  # fmt: skip


def test_a_split_that_was_not_packed_is_named(folder: Path) -> None:
    """Not by the name of an exception."""
    with pytest.raises(PackDamaged, match=r"pack\.json cannot be read \(there is no split 'val'\): pack the snapshot"):
        open_pack(folder, SPEC, ["train", "val"])


@pytest.mark.parametrize("harm", HARMS)
def test_a_pack_that_is_not_as_its_card_says_does_not_open(folder: Path, harm: str) -> None:
    """Whatever can be seen without reading all frames is seen at once."""
    do, message = HARMS[harm]
    do(folder)
    with pytest.raises(PackDamaged, match=message) as refusal:
        open_pack(folder, SPEC, ["train"])
    assert str(refusal.value).endswith("pack the snapshot again")


@pytest.mark.parametrize("file", ["train.npy", "train.detail.npy"])
def test_a_pack_that_changes_under_the_run_is_noticed(folder: Path, file: str) -> None:
    """An epoch went well; then one byte changes, and the next epoch ends instead of learning from it."""
    store, batches = store_of(folder), np.array_split(np.arange(PHOTOS), 3)
    assert sum(len(batch) for batch in store.stream(batches)) == PHOTOS
    overwrite(folder / file, -1, b"?")
    with pytest.raises(PackDamaged, match=rf"frame {PHOTOS - 1} of .*{file} is damaged or was changed"):
        list(store.stream(batches))


def test_a_touched_pack_is_compared_again_and_goes_on(folder: Path) -> None:
    """A backup or a copy that changes no byte ends no run."""
    store = store_of(folder)
    before = store.batch(np.arange(PHOTOS)).frame_BCHW
    os.utime(folder / "train.npy", (1, 1))
    assert torch.equal(store.batch(np.arange(PHOTOS)).frame_BCHW, before)


def test_a_file_that_is_cut_short_under_the_run_is_an_error(folder: Path) -> None:
    """Of a mapped file this would be a dead process without a word."""
    store = store_of(folder)
    os.truncate(folder / "train.detail.npy", 200)
    with pytest.raises(PackDamaged, match=r"train\.detail\.npy is damaged"):
        store.batch(np.arange(2))


def test_a_deleted_pack_serves_the_run_that_has_it(folder: Path) -> None:
    """What was opened stays readable to its end; nothing else is known of a pack that is gone."""
    store = store_of(folder)
    for path in folder.iterdir():
        path.unlink()
    assert len(store.batch(np.arange(PHOTOS))) == PHOTOS


def test_labels_come_from_a_file_of_their_own(folder: Path, tmp_path: Path) -> None:
    """By photo, in the order of the pack; a photo that nobody named, or of another source, has none."""
    labels = pa.table({
        "source": ["s", "t", "s", "s"], "photo_id": ["3", "1", "0", "2"], "label": ["cat", "dog", "elk", None],
    })  # fmt: skip
    pq.write_table(labels, tmp_path / "labels.parquet")
    split = open_pack(folder, SPEC, ["train"], tmp_path / "labels.parquet").splits["train"]
    assert split.labels == ["elk", None, None, "cat"] + [None] * (PHOTOS - 4)


def test_labels_that_cannot_be_used_are_refused(folder: Path, tmp_path: Path) -> None:
    """No file, no such column, one that holds no text, two labels for one photo: each is one sentence."""
    path = tmp_path / "labels.parquet"
    with pytest.raises(ConfigError, match="cannot be read"):
        open_pack(folder, SPEC, ["train"], path)
    pq.write_table(pa.table({"source": ["s"], "photo_id": ["1"]}), path)
    with pytest.raises(ConfigError, match="source, photo_id and label") as refusal:
        open_pack(folder, SPEC, ["train"], path)
    assert "\n" not in str(refusal.value)
    for column, values in (("label", [["cat"]]), ("label", [3.5]), ("photo_id", [1]), ("source", [b"s"])):
        pq.write_table(pa.table({"source": ["s"], "photo_id": ["1"], "label": ["cat"], column: values}), path)
        with pytest.raises(ConfigError, match=rf"cannot be read \({column} is .*, not text\)"):
            open_pack(folder, SPEC, ["train"], path)
    pq.write_table(pa.table({"source": ["s", "s"], "photo_id": [None, None], "label": ["cat", "dog"]}), path)
    with pytest.raises(ConfigError, match="calls the photo s/None both 'cat' and 'dog'"):
        open_pack(folder, SPEC, ["train"], path)
    pq.write_table(pa.table({"source": ["s", "s"], "photo_id": ["1", "1"], "label": ["cat", "dog"]}), path)
    with pytest.raises(ConfigError, match="calls the photo s/1 both 'cat' and 'dog'"):
        open_pack(folder, SPEC, ["train"], path)


def test_a_pack_of_another_recipe_is_refused(folder: Path) -> None:
    """Both sizes stand in the sentence."""
    with pytest.raises(ConfigError, match=r"16 x 24 and 32 x 48 .*, the recipe wants 16 x 24 \(photo\)"):
        open_pack(folder, PackSpec(16, 24), ["train"])
