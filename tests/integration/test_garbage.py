"""Collecting garbage from a root of real files: what goes, what stays, and what is made again."""

import io
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage import blobs, catalog, garbage, ledger, manifest, snapshots
from storage.errors import StorageError
from storage.layout import Layout, write_bytes
from storage.pauses import Pause, PauseFile
from storage.records import ManifestRef, PackRef
from tasks.publish import publish_snapshot

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
FUTURE_S = time.time() + 3600  # everything was last touched before it
Row = dict[str, Any]


def put(where: Layout, seed: int) -> str:
    """A small picture of its own."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return blobs.put(where, out.getvalue(), "JPEG")


class Root:
    """A root whose dataset has two versions: photo a only in the first, b in both, and turned; c is held, and in none.

    The picture ``orphan`` was replaced before anything was published. Stages left their outputs, Prefect its results.
    """

    def __init__(self, where: Layout) -> None:
        self.where = where
        self.of = {name: put(where, seed) for seed, name in enumerate(("a", "b", "turned", "c", "orphan"))}
        rows = [self.row("a", self.of["a"]), self.row("b", self.of["turned"])]
        self.joined = [self.publish(rows), self.publish(rows[1:])]
        self.attempt("c", "orphan", 0)
        self.attempt("c", "c", 1)
        self.measured = manifest.write_rows(where, "measure", [{"source": "s", "photo_id": "b", "width": 36}])
        self.record("measure/1", self.measured)

    def row(self, photo_id: str, blob: str) -> Row:
        return {
            "source": "s", "photo_id": photo_id, "sha256": self.of[photo_id], "blob": blob, "format": "JPEG",
            "split": "train", "verdict": True,
        }  # fmt: skip

    def publish(self, rows: list[Row]) -> ManifestRef:
        joined = manifest.write_rows(self.where, "publish", rows)
        write_bytes(self.where.root / "stages" / "report" / "page.html", b"<html></html>")
        page = manifest.file_ref(self.where, self.where.root / "stages" / "report" / "page.html")
        publish_snapshot(self.where, "crops", {}, joined, {"report.html": page})
        return joined

    def attempt(self, photo_id: str, picture: str, attempt: int) -> None:
        """Put a download into the ledger."""
        key = {"source": "s", "photo_id": photo_id}
        row = key | {"attempt": attempt, "fetched_at": NOW, "sha256": self.of[picture], "format": "JPEG"}
        ledger.adopt(self.where, "crops", manifest.write_rows(self.where, "attempts", [row]))
        listing = key | {"query_id": "q", "observed_at": NOW}
        ledger.adopt(self.where, "crops", manifest.write_rows(self.where, "listings", [listing]))

    def record(self, key: str, ref: ManifestRef) -> Path:
        """Keep ``ref`` as Prefect keeps the result of a task."""
        kept = {"__class__": "storage.records.ManifestRef", "data": ref.model_dump()}
        path = self.where.cache / key
        write_bytes(path, json.dumps({"metadata": {"expiration": None}, "result": json.dumps(kept)}).encode())
        return path

    def pack(self, name: str, is_judged: bool | None) -> Path:
        """A pack and, unless None, a run on it that was judged or not."""
        folder = self.where.pack(name)
        write_bytes(folder / "pack.json", b"{}")
        if is_judged is not None:
            run = self.where.run(f"run-{name}")
            write_bytes(run / "train.run.json", json.dumps({"pack_dir": str(folder)}).encode())
            if is_judged:
                write_bytes(run / "evaluation.json", b"{}")
        return folder

    def weights(self, sha256: str, account: str, how: str | None) -> Path:
        """Weights from elsewhere, with what they have learnt if that is known; ``how`` a run tells that it began there:
        by its request, as one that never ended, by its card, or not at all."""
        file = self.where.weights(account, sha256, ".pth")
        write_bytes(file, b"weights")
        if account != "unknown":
            write_bytes(file.parents[1] / "learnt.parquet", b"keys")
        run = self.where.run(f"run-{sha256}")
        if how == "request":
            asked = {"pack_dir": "x", "start_from": [f"/another/root/{file.relative_to(self.where.root)}"]}
            write_bytes(run / "train.run.json", json.dumps(asked).encode())
        elif how == "card":
            write_bytes(run / "train.json", json.dumps({"start_from": [{"sha256": sha256}]}).encode())
        return file

    def pictures(self) -> set[str]:
        left = {path.stem for path in (self.where.root / "blobs").rglob("*.jpg")}
        return {name for name, sha256 in self.of.items() if sha256 in left}

    def collect(self, before_s: float = FUTURE_S) -> dict[str, int]:
        """How many of each kind were garbage and are deleted now."""
        heaps = garbage.find(self.where, before_s)
        garbage.delete(heaps)
        return {heap.kind: len(heap.paths) for heap in heaps}


@pytest.fixture
def root(where: Layout) -> Root:
    return Root(where)


def test_what_a_snapshot_or_a_ledger_refers_to_stays(root: Root) -> None:
    """Every file of every version, the photos of old ones and turned ones, and what is held and not yet published."""
    root.collect()
    assert root.pictures() == {"a", "b", "turned", "c"}
    assert [snapshots.verify(root.where, "crops", version) for version in (1, 2)] == [[], []]
    assert all(manifest.intact(root.where, ref) for ref in root.joined)
    assert ledger.read(root.where, "crops", "attempts").num_rows == 2


def test_what_nobody_refers_to_goes(root: Root) -> None:
    """Outputs of stages, results that name them, and photos that were replaced; a second time finds nothing."""
    outputs = len(list(root.where.root.glob("stages/*/*"))) - len(root.joined)
    assert root.collect() == {"stages": outputs, "cache": 1, "packs": 0, "blobs": 1, "weights": 0, "pauses": 0}
    assert not manifest.intact(root.where, root.measured)
    assert root.collect() == {"stages": 0, "cache": 0, "packs": 0, "blobs": 0, "weights": 0, "pauses": 0}


def test_what_is_young_stays(root: Root) -> None:
    """It may be somebody's work; and with an output stay the photos that it names."""
    assert set(root.collect(time.time() - 3600).values()) == {0}
    os.utime(root.where.blob(root.of["orphan"], "JPEG"), (0, 0))
    assert root.collect(time.time() - 3600)["blobs"] == 0, "the attempt that fetched it is young"
    for output in root.where.root.glob("stages/attempts/*"):
        os.utime(output, (0, 0))
    gone = {kind: count for kind, count in root.collect(time.time() - 3600).items() if count}
    assert gone == {"stages": 2, "blobs": 1}


def test_what_is_used_again_counts_as_new(root: Root) -> None:
    """A stage that is cached for years is no garbage while somebody asks for it."""
    pack = root.pack("x", is_judged=None)
    ref = PackRef(digest="x", sha256="", size_bytes=2, photos={})
    for path in (root.where.stage("measure", root.measured.sha256), pack / "pack.json"):
        os.utime(path, (0, 0))
    garbage.mark_used(root.where, [root.measured, ref])
    root.collect(time.time() - 3600)
    assert manifest.intact(root.where, root.measured)
    assert pack.is_dir()


def test_a_result_stays_while_its_output_does(root: Root) -> None:
    """However old it is; one that has expired goes, and what is not ours is left alone."""
    young = root.record("publish/1", root.joined[0])
    expired, foreign = root.where.cache / "measure" / "2", root.where.cache / "measure" / "3"
    write_bytes(expired, json.dumps({"metadata": {}, "result": "null"}).encode())
    write_bytes(foreign, b"no JSON")
    assert root.collect()["cache"] == 2
    assert (young.is_file(), expired.is_file(), foreign.is_file()) == (True, False, True)


def test_the_pack_of_an_unfinished_training_stays(root: Root) -> None:
    """A training that was judged needs its pack no more, and a pack without a training none at all."""
    packs = {name: root.pack(name, is_judged) for name, is_judged in (("judged", True), ("going", False), ("x", None))}
    assert root.collect()["packs"] == 2
    assert [name for name, folder in packs.items() if folder.is_dir()] == ["going"]
    assert root.where.run("run-judged").is_dir()


def test_weights_stay_while_a_run_tells_that_it_started_from_them(root: Root) -> None:
    """With what they have learnt, which goes with the last weights that have learnt it; young ones stay, too."""
    begun = root.weights("begun", "first", "request")
    ended = root.weights("ended", "unknown", "card")
    shared, lost = (root.weights(sha256, account, None) for sha256, account in (("a", "first"), ("b", "second")))
    assert root.collect(time.time() - 3600)["weights"] == 0
    heap = {heap.kind: heap for heap in garbage.find(root.where, FUTURE_S)}["weights"]
    assert (heap.kept, heap.size_bytes) == (3, len(b"weights" * 2 + b"keys"))
    assert heap.paths == [shared, lost, lost.parents[1] / "learnt.parquet"]
    assert root.collect()["weights"] == 3
    left = {path for path in root.where.root.glob("weights/**/*") if path.is_file()}
    assert left == {begun, begun.parents[1] / "learnt.parquet", ended}


def test_pauses_stay_while_somebody_heeds_them(where: Layout) -> None:
    """One that goes on, one that has just ended, for its rate is still low, and young ones; others, damaged ones too,
    say nothing any more.
    """
    ages_s = {"goes on": 10.0, "just over": 60.0, "long over": 7200.0}
    for name, age_s in ages_s.items():
        PauseFile(where.pauses, name, lambda age_s=age_s: datetime.now(UTC) - timedelta(seconds=age_s)).tell(
            Pause(30.0, 0.5)
        )
    files = {json.loads(path.read_bytes())["budget"]: path for path in where.pauses.iterdir()}
    files["damaged"] = where.pauses / "x.json"
    files["damaged"].write_bytes(b"{")

    def collected(before_s: float) -> list[str]:
        heap = garbage.find(where, before_s)[-1]
        garbage.delete([heap])
        assert heap.kept == len(files) - len(heap.paths)
        return [name for name, path in files.items() if not path.exists()]

    assert collected(time.time() - 3600) == []
    assert collected(FUTURE_S) == ["long over", "damaged"]


def test_telling_deletes_nothing(root: Root) -> None:
    """And names what would go, in bytes."""
    before = sorted(path for path in root.where.root.rglob("*"))
    heaps = {heap.kind: heap for heap in garbage.find(root.where, FUTURE_S)}
    assert heaps["blobs"].size_bytes == root.where.blob(root.of["orphan"], "JPEG").stat().st_size
    assert (heaps["blobs"].kept, heaps["stages"].kept) == (4, 2)
    assert sorted(path for path in root.where.root.rglob("*")) == before


def test_a_damaged_snapshot_ends_it(root: Root) -> None:
    """Nobody knows which photos it refers to; a file that is gone is no better than a damaged one."""
    file = root.where.snapshot("crops", 1) / "train.parquet"
    for spoil in (lambda: file.write_bytes(b"damaged"), file.unlink):
        spoil()
        with pytest.raises(StorageError, match="nothing was deleted"):
            root.collect()
        assert root.pictures() == set(root.of)


def test_odd_files_below_the_root_end_nothing(root: Root) -> None:
    """A copy of a version that a file manager made, links that lead nowhere, a kept result that nests without end."""
    shutil.copytree(root.where.snapshot("crops", 1), root.where.snapshot("crops", 1).with_name("00001 copy"))
    for name in ("blobs/aa/bb/x.jpg", "packs/x"):
        (root.where.root / name).parent.mkdir(parents=True, exist_ok=True)
        (root.where.root / name).symlink_to("/nowhere")
    write_bytes(root.where.cache / "dedup" / "x", b"[" * 100_000)
    root.collect()
    assert catalog.versions(root.where, "crops")[0] == 1


def test_a_damaged_card_of_a_snapshot_ends_it(root: Root) -> None:
    """Nobody knows which table it was made from; the file is named, and what to do."""
    card = root.where.snapshot("crops", 1) / "snapshot.json"
    for text in ("{", "", "[]", "{}"):
        card.write_text(text)
        with pytest.raises(StorageError, match=r"nothing was deleted that '.*/00001/snapshot.json' .* from a backup"):
            root.collect()
    assert all(manifest.intact(root.where, ref) for ref in root.joined)


DAMAGED = [("train.run.json", text) for text in ("{", "", "[]", "{}", '{"pack_dir": "x", "start_from": null}')]
DAMAGED += [("train.json", text) for text in ("{", "", "[]", '{"start_from": null}', '{"start_from": [{}]}')]


def test_while_a_run_is_damaged_packs_and_weights_stay(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what it needs: that is said, and everything else is collected."""
    pack, weights = root.pack("x", is_judged=None), root.weights("lost", "first", None)
    for name, text in DAMAGED:
        damaged = root.where.run("odd") / name
        write_bytes(damaged, text.encode())
        caplog.clear()
        garbage_of = {heap.kind: len(heap.paths) for heap in garbage.find(root.where, FUTURE_S)}
        assert (garbage_of["blobs"], garbage_of["packs"], garbage_of["weights"]) == (1, 0, 0), (name, text)
        assert f"no packs and no weights are collected: nothing was deleted that {str(damaged)!r}" in caplog.text
        damaged.unlink()
    root.collect()
    assert not pack.exists()
    assert not weights.exists()


def test_an_interrupted_collection_is_finished_by_the_next(root: Root) -> None:
    """Whatever was deleted before."""
    heaps = garbage.find(root.where, FUTURE_S)
    garbage.delete(heaps[:1])
    assert root.collect() == {"stages": 0, "cache": 1, "packs": 0, "blobs": 1, "weights": 0, "pauses": 0}


def test_an_empty_root_has_no_garbage(where: Layout) -> None:
    """Nor is one made."""
    assert [len(heap.paths) for heap in garbage.find(where, FUTURE_S)] == [0, 0, 0, 0, 0, 0]
    assert list(where.root.iterdir()) == []
