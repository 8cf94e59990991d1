"""Packing real files: what training gets to see, and when a pack counts as whole."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import ConfigError, PackDamaged
from models.frames import PackSpec, Picture
from models.loader import FrameStore, open_pack
from storage import blobs, manifest, purge, removals
from storage.layout import Layout
from storage.records import SPLITS, ManifestRef, PackRef
from tasks import caching
from tasks.errors import BlobCorrupt, DiskFull, TooFewPhotos
from tasks.pack import MIN_PHOTOS, check_enough, frames, pack
from tasks.pictures import imaging

HEIGHT, WIDTH = 32, 48
FORMATS = ("JPEG", "PNG")


def scene(seed: int) -> imaging.Pixels:
    """An upright landscape of 3:2, four times as large as its frame, with no symmetry."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return np.asarray(cells.resize((4 * WIDTH, 4 * HEIGHT), Image.Resampling.BICUBIC))


def photo(root: Layout, seed: int, net_op: int, split: str) -> dict[str, Any]:
    """A row of "selection" whose blob shows ``scene(seed)`` once ``net_op`` is applied."""
    image_format = FORMATS[seed % 2]
    out = io.BytesIO()
    stored = imaging.make_upright(scene(seed), imaging.invert(net_op))
    Image.fromarray(stored).save(out, image_format, **({"quality": 95, "subsampling": 0} if seed % 2 == 0 else {}))
    return {
        "source": "s", "photo_id": f"{seed:03d}", "owner_id": f"o{seed}", "split": split, "net_op": net_op,
        "blob": blobs.put(root, out.getvalue(), image_format), "format": image_format,
    }  # fmt: skip


@pytest.fixture
def rows(root: Layout) -> list[dict[str, Any]]:
    """Sixteen photos, each orientation as JPEG or PNG, over all splits."""
    return [photo(root, seed, 1 + (seed // 2) % 8, SPLITS[seed % 3]) for seed in range(16)]


@pytest.fixture
def selection(root: Layout, rows: list[dict[str, Any]]) -> ManifestRef:
    return manifest.write_rows(root, "selection", rows)


def packed(selection: ManifestRef) -> PackRef:
    ref: PackRef = pack.fn(selection, HEIGHT, WIDTH)
    return ref


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_frames_are_upright_and_of_one_size(root: Layout, selection: ManifestRef, rows: list[dict[str, Any]]) -> None:
    """models.loader opens what was packed: each photo once, turned by its net_op, shrunk to the recipe's frame."""
    ref = packed(selection)
    opened = open_pack(root.pack(ref.digest), PackSpec(HEIGHT, WIDTH), SPLITS)
    assert opened.digest == ref.sha256
    assert (
        {name: len(split) for name, split in opened.splits.items()} == ref.photos == {"train": 6, "val": 5, "test": 5}
    )
    for name, split in opened.splits.items():
        assert split.frames.shape == (ref.photos[name], HEIGHT, WIDTH, 3)
        assert split.photo_ids == [row["photo_id"] for row in rows if row["split"] == name]
        assert set(split.sources) == {"s"}
        for frame, photo_id in zip(split.frames, split.photo_ids, strict=True):
            expected = imaging.resize_area(scene(int(photo_id)), HEIGHT, WIDTH)
            assert np.abs(frame.astype(int) - expected).mean() < 3, photo_id


def test_the_same_photos_give_the_same_bytes(root: Layout, selection: ManifestRef, rows: list[dict[str, Any]]) -> None:
    """Packing again, or from rows in another order, writes the same files; another size is another pack."""
    first = packed(selection)
    before = bytes_of(root.pack(first.digest))
    assert packed(manifest.write_rows(root, "selection", rows[::-1])) == first
    assert bytes_of(root.pack(first.digest)) == before
    assert pack.fn(selection, HEIGHT, WIDTH + 2).digest != first.digest
    assert [entry.name for entry in root.pack("x").parent.iterdir() if entry.name.endswith(".part")] == []


@pytest.mark.parametrize("harm", ["delete the folder", "delete a file", "truncate", "card", "extra"])
def test_a_damaged_pack_is_not_intact(root: Layout, selection: ManifestRef, harm: str) -> None:
    """What is missing, shorter, longer or differently described is made again; packing repairs it."""
    ref = packed(selection)
    folder = root.pack(ref.digest)
    assert caching.intact(root, ref)
    if harm == "delete the folder":
        folder.rename(folder.with_name("away"))
    elif harm == "delete a file":
        (folder / "val.parquet").unlink()
    elif harm == "truncate":
        (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-1])
    elif harm == "card":
        card = (folder / "pack.json").read_text()
        (folder / "pack.json").write_text(card.replace('"version": 2', '"version": 3'))
    else:
        (folder / "more").write_text("more")
    assert not caching.intact(root, ref)
    assert packed(selection) == ref
    assert caching.intact(root, ref)


def test_the_training_process_notices_a_flipped_bit(root: Layout, selection: ManifestRef) -> None:
    """Equal sizes are not enough there: each frame is compared with its digest when it is first read."""
    folder = root.pack(packed(selection).digest)
    data = bytearray((folder / "train.npy").read_bytes())
    data[-1] ^= 1
    (folder / "train.npy").write_bytes(data)
    split = open_pack(folder, PackSpec(HEIGHT, WIDTH), SPLITS).splits["train"]
    store = FrameStore(split, torch.device("cpu"))
    assert len(store.batch(np.arange(len(split) - 1))) == len(split) - 1
    with pytest.raises(PackDamaged, match=r"frame 5 of .*train.npy is damaged"):
        store.batch(np.array([len(split) - 1]))


def test_details_come_from_the_same_decode(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger frame shows the same photo, upright, and each file is decoded once for both."""
    decodes = counting_decodes(monkeypatch)
    spec = PackSpec(HEIGHT, WIDTH, 3 * HEIGHT, 3 * WIDTH)
    ref = pack.fn(selection, **asdict(spec))
    assert len(decodes) == 16
    for split in open_pack(root.pack(ref.digest), spec, SPLITS).splits.values():
        assert split.details is not None
        for frame, detail, photo_id in zip(split.frames, split.details, split.photo_ids, strict=True):
            for found in (frame, detail):
                expected = imaging.resize_area(scene(int(photo_id)), *found.shape[:2])
                assert np.abs(found.astype(int) - expected).mean() < 3, photo_id
    assert bytes_of(root.pack(ref.digest))["train.npy"] != b""
    assert ref.digest != packed(selection).digest


def test_extreme_photos_stand_whole_in_white(root: Layout) -> None:
    """Beyond the factor a photo keeps its aspect, turned as it is shown; within it it is squeezed as ever."""
    out = io.BytesIO()
    Image.fromarray(np.full((16, 512, 3), 90, np.uint8)).save(out, "PNG")
    blob = blobs.put(root, out.getvalue(), "PNG")
    wide = {"source": "s", "owner_id": "o", "split": "train", "format": "PNG", "blob": blob}
    rows = [wide | {"photo_id": name, "net_op": net_op} for name, net_op in {"lying": 1, "standing": 6}.items()]
    rows.append(photo(root, 0, 1, "train"))
    selection = manifest.write_rows(root, "selection", rows)
    ref = pack.fn(selection, 64, 64, pad_beyond=2.0)
    spec = PackSpec(64, 64, pad_beyond=2.0)
    split = open_pack(root.pack(ref.digest), spec, ["train"]).splits["train"]
    frames = dict(zip(split.photo_ids, split.frames, strict=True))
    lying = np.full((64, 64, 3), 255)
    lying[31:33] = 90
    assert np.array_equal(frames["lying"], lying)
    assert np.array_equal(frames["standing"], lying.swapaxes(0, 1))
    assert np.abs(frames["000"].astype(int) - imaging.resize_area(scene(0), 64, 64)).mean() < 3
    assert not np.array_equal(frames["lying"], pack_frames(root, selection, PackSpec(64, 64))["lying"])


def pack_frames(root: Layout, selection: ManifestRef, spec: PackSpec) -> dict[str, Any]:
    """The frames of train by photo."""
    ref = pack.fn(selection, **asdict(spec))
    split = open_pack(root.pack(ref.digest), spec, ["train"]).splits["train"]
    return dict(zip(split.photo_ids, split.frames, strict=True))


def test_each_kind_of_picture_is_a_pack_of_its_own(root: Layout, selection: ManifestRef) -> None:
    """Another digest, other frames, and the training process refuses one that its recipe does not want."""
    packs = {kind: pack.fn(selection, HEIGHT, WIDTH, picture=kind) for kind in get_args(Picture)}
    assert packs["photo"] == packed(selection)
    assert len({ref.digest for ref in packs.values()}) == 3
    contours = pack_frames(root, selection, PackSpec(HEIGHT, WIDTH, picture="contours"))
    assert {value for frame in contours.values() for value in np.unique(frame)} == {0, 255}
    with pytest.raises(ConfigError, match=r"32 x 48 \(contours\), the recipe wants 32 x 48 \(photo\)"):
        open_pack(root.pack(packs["contours"].digest), PackSpec(HEIGHT, WIDTH), SPLITS)


def test_a_photo_that_is_gone_leaves_no_pack(root: Layout, selection: ManifestRef, rows: list[dict[str, Any]]) -> None:
    """Half a pack is none, and its draft is removed."""
    lonely = photo(root, 99, 1, "train")
    root.blob(lonely["blob"], lonely["format"]).unlink()
    torn = manifest.write_rows(root, "selection", [*rows, lonely])
    with pytest.raises(BlobCorrupt, match="missing"):
        packed(torn)
    digest = caching.digest("pack", {"selection": torn, **asdict(PackSpec(HEIGHT, WIDTH))})
    assert not root.pack(digest).exists()
    assert not list(root.pack(digest).parent.glob(f"{digest}*"))


@pytest.mark.parametrize(("photos", "decodes_left"), [(0, 16), (9, 7), (16, 0)])
def test_a_full_disk_keeps_the_photos_that_are_whole(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch, photos: int, decodes_left: int
) -> None:
    """It ends in our error, which names the remedy. A draft without a photo goes; any other stays, and the next try
    goes on behind it, also if the last file alone found no room."""
    drawn: list[int] = []

    def until_full(data: bytes, net_op: int, spec: PackSpec) -> list[imaging.Pixels]:
        drawn.append(1)
        if len(drawn) > photos:
            raise OSError(errno.ENOSPC, "no space")
        return frames(data, net_op, spec)

    def no_room(file: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr("tasks.pack.frames", until_full)
        full.setattr("tasks.pack.THREADS", 1)
        full.setattr("tasks.pack.READ_AHEAD", 0)
        full.setattr("tasks.pack.write_bytes", no_room)
        with pytest.raises(DiskFull, match="DARKROOM_ROOT"):
            pack.fn(selection, 30 + photos, 47)
    drafts = list((root.root / "packs").glob("*.part"))
    assert len(drafts) == bool(photos)
    assert not any((draft / "pack.json").exists() for draft in drafts)
    decodes = counting_decodes(monkeypatch)
    ref = pack.fn(selection, 30 + photos, 47)
    assert len(decodes) == decodes_left
    assert caching.intact(root, ref)
    assert not list(root.pack(ref.digest).glob("*.sha256"))
    assert not list((root.root / "packs").glob("*.part"))


def test_room_is_asked_for_before_anything_is_decoded(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says how much is needed and how much there is; nothing was written."""
    monkeypatch.setattr("tasks.pack.frames", lambda *given: pytest.fail("decoded"))
    with pytest.raises(DiskFull, match=r"16 photos as 100000 x 100000 .* take 480\.0 GB more .* free") as refusal:
        pack.fn(selection, 100_000, 100_000)
    assert "\n" not in str(refusal.value)
    assert list((root.root / "packs").glob("*.part")) == []


class Killed(BaseException):
    """What no cleaning up catches."""


KILLED = """
import os, sys
from storage.records import ManifestRef
from tasks import pack
frames, decoded = pack.frames, []
def until_killed(*given):
    decoded.append(1)
    if len(decoded) > 9:
        os.kill(os.getpid(), 9)
    return frames(*given)
pack.frames, pack.THREADS, pack.READ_AHEAD = until_killed, 1, 0
pack.pack.fn(ManifestRef.model_validate_json(sys.argv[1]), 32, 48, 96, 144)
"""
DETAILED = PackSpec(HEIGHT, WIDTH, 3 * HEIGHT, 3 * WIDTH)


def decoding_until(monkeypatch: pytest.MonkeyPatch, photos: int) -> None:
    """Let packing end, as if it were killed, when it has decoded so many photos."""
    decoded: list[int] = []

    def until_killed(data: bytes, net_op: int, spec: PackSpec) -> list[imaging.Pixels]:
        decoded.append(1)
        if len(decoded) > photos:
            raise Killed
        return frames(data, net_op, spec)

    monkeypatch.setattr("tasks.pack.frames", until_killed)


def counting_decodes(monkeypatch: pytest.MonkeyPatch, pause_s: float = 0.0) -> list[int]:
    """A list that grows by one for each photo that is decoded."""
    decodes: list[int] = []
    decode = imaging.decode_upright

    def counted(*given: Any, **named: Any) -> imaging.Pixels:
        decodes.append(1)
        time.sleep(pause_s)
        return decode(*given, **named)

    monkeypatch.setattr(imaging, "decode_upright", counted)
    return decodes


def test_a_killed_pack_goes_on_where_it_was(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second split, and its last frame torn: what is whole is not decoded again; the bytes are those of
    a pack that nobody disturbed."""
    command = [sys.executable, "-c", KILLED, selection.model_dump_json()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    (draft,) = (root.root / "packs").glob("*.part")
    assert not (draft / "pack.json").exists()
    size_bytes = (draft / "val.detail.npy").stat().st_size
    os.truncate(draft / "val.detail.npy", size_bytes - 7)
    decodes = counting_decodes(monkeypatch)
    ref = pack.fn(selection, **asdict(DETAILED))
    assert 16 - 9 < len(decodes) <= 16 - 9 + 2, "the photo of the torn frame, and perhaps one that was in flight"
    resumed = bytes_of(root.pack(ref.digest))
    shutil.rmtree(root.pack(ref.digest))
    assert pack.fn(selection, **asdict(DETAILED)) == ref
    assert bytes_of(root.pack(ref.digest)) == resumed
    assert set(resumed) == {"pack.json"} | {
        f"{split}{ending}" for split in SPLITS for ending in (".npy", ".detail.npy", ".parquet")
    }


def test_a_draft_with_other_bytes_is_decoded_again_from_there(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that lost its bytes, as after a power cut, is noticed by its digest; those behind it go, too."""
    decoding_until(monkeypatch, 5)
    with pytest.raises(Killed):
        pack.fn(selection, **asdict(DETAILED))
    monkeypatch.undo()
    (draft,) = (root.root / "packs").glob("*.part")
    with (draft / "train.npy").open("r+b") as stream:
        stream.seek(128 + 2 * HEIGHT * WIDTH * 3)
        stream.write(bytes(100))
    decodes = counting_decodes(monkeypatch)
    ref = pack.fn(selection, **asdict(DETAILED))
    assert len(decodes) == 16 - 2
    split = open_pack(root.pack(ref.digest), DETAILED, ["train"]).splits["train"]
    store = FrameStore(split, torch.device("cpu"), needs_detail=True)
    assert len(store.batch(np.arange(len(split)))) == len(split)


def test_a_removed_photo_takes_the_draft_along(
    root: Layout, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process left of it is found by the purge, which needs no pack.json for that."""
    lonely = photo(root, 77, 1, "train") | {"source": "draft"}
    decoding_until(monkeypatch, 3)
    with pytest.raises(Killed):
        packed(manifest.write_rows(root, "selection", [*rows, lonely]))
    (draft,) = (root.root / "packs").glob("*.part")
    removals.add(root, [{"source": "draft", "photo_id": "077", "removed_at": datetime.now(UTC)}])
    assert purge.delete_packs(root, purge.remains(root)) == 1
    assert not draft.exists()


def test_two_packers_of_one_pack_make_it_once(
    root: Layout, selection: ManifestRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for the first, and takes what it made."""
    decodes = counting_decodes(monkeypatch, pause_s=0.02)
    monkeypatch.setattr("tasks.pack.POLL_S", 0.01)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: pack.fn(selection, HEIGHT + 4, WIDTH + 4), range(2))
    assert first == second
    assert len(decodes) == 16


def test_an_empty_split_is_a_file_without_frames(root: Layout, rows: list[dict[str, Any]]) -> None:
    """A pack says that it has no test photos; whoever needs some refuses it."""
    ref = packed(manifest.write_rows(root, "selection", [row for row in rows if row["split"] != "test"]))
    assert ref.photos == {"train": 6, "val": 5, "test": 0}
    assert len(open_pack(root.pack(ref.digest), PackSpec(HEIGHT, WIDTH), SPLITS).splits["test"]) == 0


def test_the_card_tells_nothing_of_this_machine(root: Layout, selection: ManifestRef) -> None:
    """No path, no time, no name: a pack may be carried elsewhere."""
    card = json.loads((root.pack(packed(selection).digest) / "pack.json").read_text())
    assert set(card) == {"version", "rotate", "splits", *asdict(PackSpec(1, 1))}
    assert str(root.root) not in json.dumps(card)


@pytest.mark.parametrize("split", SPLITS)
def test_too_few_photos_are_named(split: str) -> None:
    """One sentence: what there is, what it takes, and what to do; exactly enough is enough."""
    check_enough(MIN_PHOTOS, "it")
    with pytest.raises(TooFewPhotos) as refusal:
        check_enough(MIN_PHOTOS | {split: MIN_PHOTOS[split] - 1}, "version 3 of the dataset 'crops'")
    message = str(refusal.value)
    assert message.startswith("version 3 of the dataset 'crops' has ")
    assert f"{MIN_PHOTOS[split] - 1} in {split}" in message
    assert f"at least {MIN_PHOTOS[split]} in {split}" in message
    assert "Widen" in message
    assert "\n" not in message
