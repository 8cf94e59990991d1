"""Purging removed photos from a root of real files: what goes, what stays, and what an interruption leaves."""

import io
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import storage.purge
from models import fit
from storage import blobs, catalog, ledger, manifest, removals, snapshots, splits
from storage.layout import Layout, write_bytes
from storage.records import SPLITS
from tasks import publish, purge
from tasks.errors import RemovedPhoto
from tasks.pack import check_allowed, pack
from tasks.publish import published

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
SPLIT_OF = {"a": "train", "b": "train", "c": "val", "d": "test", "twin": "train"}
TRACES = ("Title of a", "Owner of a", "secret-of-a")


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


class Root:
    """A root with the dataset ``name``: photos a, b, c, d (the file of a was turned), a pack, and a run on it."""

    def __init__(self, where: Layout, name: str = "crops", photos: str = "abcd") -> None:
        self.where, self.name = where, name
        rows = [self.photo(photo) for photo in photos]
        self.find(rows)
        names = ("source", "photo_id")
        manifest.write_rows(where, "rotate", ({key: row[key] for key in (*names, "blob", "net_op")} for row in rows))
        self.publish(rows)
        self.pack_dir = where.pack(f"pack-{name}")
        self.run_dir = where.run(f"run-{name}")
        self.train(rows)

    def find(self, rows: list[dict[str, Any]]) -> None:
        """Put ``rows`` into the ledger, as found and fetched."""
        names = ("source", "photo_id")
        self.ledger("listings", [
            {key: row[key] for key in (*names, "owner_id", "owner_name", "title", "image_url", "page_url")}
            | {"observed_at": NOW, "query_id": self.name} for row in rows
        ])  # fmt: skip
        self.ledger("attempts", [
            {key: row[key] for key in (*names, "sha256", "format")}
            | {"attempt": 0, "fetched_at": NOW, "fetched_url": row["image_url"]} for row in rows
        ])  # fmt: skip

    def photo(self, photo: str) -> dict[str, Any]:
        """A published row."""
        seed = ord("a") if photo == "t" else ord(photo)  # t: another upload of the bytes of a
        sha256 = blobs.put(self.where, jpeg(seed), "JPEG")
        turned = blobs.put(self.where, jpeg(1000 + seed), "JPEG") if seed == ord("a") else sha256
        return {
            "source": "flickr", "photo_id": photo, "owner_id": f"o{photo}", "owner_name": f"Owner of {photo}",
            "title": f"Title of {photo}", "image_url": f"http://x/secret-of-{photo}.jpg", "sha256": sha256,
            "page_url": f"http://x/{photo}", "blob": turned, "format": "JPEG", "net_op": 1, "width": 36, "height": 24,
            "long_px": 36, "short_px": 24, "aspect_milli": 1500, "exif_orientation": 1, "licence": "CC0",
            "split": SPLIT_OF.get(photo, "train"), "group_id": f"o{photo}", "verdict": True,
        }  # fmt: skip

    def ledger(self, kind: str, rows: list[dict[str, Any]]) -> None:
        ledger.adopt(self.where, self.name, manifest.write_rows(self.where, kind, rows))

    def publish(self, rows: list[dict[str, Any]]) -> None:
        joined = manifest.write_rows(self.where, "publish", rows)
        write_bytes(self.where.root / "stages" / "report" / "page.html", f"<p>{rows[0]['title']}</p>".encode())
        page = manifest.file_ref(self.where, self.where.root / "stages" / "report" / "page.html")
        publish.publish_snapshot(self.where, self.name, {}, joined, {"report.html": page})

    def train(self, rows: list[dict[str, Any]]) -> None:
        keys = [{name: row[name] for name in ("source", "photo_id", "owner_id")} for row in rows]
        for folder in (self.pack_dir, self.run_dir):
            folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(keys), self.pack_dir / "train.parquet")
        (self.pack_dir / "pack.json").write_text("{}")
        pq.write_table(pa.Table.from_pylist(keys), self.run_dir / "predictions.parquet")
        samples = [{**key, "rectangle": [0, 1, 0, 1]} for key in keys]
        evaluation = {"figures": [], "pictures": {"heat_maps": samples, "size_factor_errors": [{"label": "all"}]}}
        (self.run_dir / "evaluation.json").write_text(json.dumps(evaluation))
        (self.run_dir / "README.md").write_text("a card")
        (self.run_dir / "weights.safetensors").write_bytes(b"weights")
        title = f"<title>tiny on {self.name}, version 1</title>"
        (self.run_dir / "report.html").write_text(f"{title}<p>{rows[0]['title']}</p>")

    def begin(self, name: str) -> Path:
        """What a training leaves that was killed before its end."""
        folder = self.where.run(name)
        request = {"pack_dir": f"/another/root/packs/{self.pack_dir.name}"}
        write_bytes(folder / "train.run.json", json.dumps(request).encode())
        write_bytes(folder / "checkpoint" / "epoch-1" / "weights.safetensors", b"secret-of-a")
        for file in (".lock", "metrics.jsonl"):
            write_bytes(folder / file, b"")
        return folder

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["photo_id"]: row for row in published(self.where, self.name, 1).to_pylist()}


def remove(where: Layout, **what: str) -> None:
    removals.add(where, [{"reason": "asked", "proof": "a letter", "removed_at": NOW, **what}])


def traces(where: Layout, words: tuple[str, ...] = TRACES, photo_id: str = "a") -> list[str]:
    """Files that say one of ``words``, or have a row of the photo with more than its key."""
    found = []
    for path in sorted(path for path in where.root.rglob("*") if path.is_file()):
        said = path.read_bytes()
        if path.suffix == ".parquet" and said.endswith(b"PAR1"):
            rows = manifest.read_file(path).to_pylist()
            said += str(rows).encode()
            told = [row for row in rows if row.get("photo_id") == photo_id and row.get("reason") != "removed"]
            found += [f"{path}: row"] if told and path.parent.name != "removals" else []
        found += [f"{path}: {word}" for word in words if word.encode() in said]
    return found


def is_sound(root: Root) -> bool:
    """Whether a snapshot's card tells its files, its counts and its rows."""
    card: dict[str, Any] = catalog.card(root.where, root.name, 1)
    folder = root.where.snapshot(root.name, 1)
    counts, reasons = publish.count(published(root.where, root.name, 1))
    names = {path.name for path in folder.iterdir()} - {"snapshot.json"}
    return (
        (card["counts"], card["reasons"]) == (counts, reasons)
        and set(card["files"]) == names
        and all(manifest.sha256_file(folder / name) == digest for name, digest in card["files"].items())
        and card["removed"] == reasons["removal/removed"]
    )


def test_nothing_of_a_removed_photo_stays_but_its_key(where: Layout) -> None:
    """Bytes, what was derived from them, outputs of stages, pack, predictions, pages, ledger rows and columns go."""
    root = Root(where)
    before = root.rows()
    assert len(traces(where)) > 10, "or there was nothing to purge"
    remove(where, source="flickr", photo_id="a")
    purged = purge.purge_removed(where)
    assert (purged.photos, purged.blobs, purged.packs, purged.reports, purged.snapshots) == (1, 2, 1, 1, 1)
    assert purged.datasets == ("crops",)
    assert traces(where) == []
    for digest in (before["a"]["sha256"], before["a"]["blob"]):
        assert not list((where.root / "blobs").rglob(f"{digest}*"))
    after = root.rows()
    told = {name: value for name, value in after["a"].items() if value is not None}
    assert told == {
        "source": "flickr", "photo_id": "a", "verdict": False, "reason": "removed", "reason_stage": "removal",
    }  # fmt: skip
    assert {key: row for key, row in after.items() if key != "a"} == {k: r for k, r in before.items() if k != "a"}
    assert is_sound(root)
    assert all(where.blob(row["blob"], "JPEG").is_file() for key, row in after.items() if key != "a")
    assert (root.run_dir / "weights.safetensors").is_file(), "weights stay"
    assert [row["photo_id"] for row in manifest.read_file(root.run_dir / "predictions.parquet").to_pylist()] == [*"bcd"]
    assert not (root.run_dir / "README.md").exists(), "it goes with the page, and comes with it"
    pictures = json.loads((root.run_dir / "evaluation.json").read_text())["pictures"]
    assert [sample["photo_id"] for sample in pictures["heat_maps"]] == [*"bcd"]
    assert pictures["size_factor_errors"] == [{"label": "all"}]


def test_a_training_of_a_removed_photo_that_never_ended_goes(where: Layout) -> None:
    """With its checkpoint, as its pack tells; one that lives is left to its own end. One that ended stays, and one on
    another pack, or whose request cannot be read."""
    root = Root(where)
    killed, alive, ended, other, odd = (root.begin(name) for name in ("killed", "alive", "ended", "other", "odd"))
    (ended / "train.json").write_text("{}")
    (other / "train.run.json").write_text(json.dumps({"pack_dir": "packs/another"}))
    (odd / "train.run.json").write_text("{")
    remove(where, source="flickr", photo_id="a")
    with fit._held(alive, lambda: False):  # as a training does
        assert purge.purge_removed(where).runs == 1
    assert [folder.exists() for folder in (killed, alive, ended, other, odd)] == [False, True, True, True, True]
    assert (alive / "checkpoint" / "epoch-1" / "weights.safetensors").is_file()
    assert not root.pack_dir.exists()


def test_a_training_that_lived_during_a_purge_and_was_killed_goes_with_the_next(where: Layout) -> None:
    """Though its pack, which told of it, went with the first; and even if it came to its end after the removal."""
    root = Root(where)
    killed, ended = root.begin("killed"), root.begin("ended")
    remove(where, source="flickr", photo_id="a")
    with fit._held(killed, lambda: False), fit._held(ended, lambda: False):
        for _ in range(2):
            assert purge.purge_removed(where).runs == 0
            assert purge.is_needed(where)
    (ended / "train.json").write_text("{}")
    assert purge.purge_removed(where).runs == 2
    assert not killed.exists()
    assert not ended.exists()
    assert not purge.is_needed(where)


def predicted(where: Layout, name: str, sha256s: list[str | None], digests: bool = True) -> Path:
    """What a model said of a person's own photos: a table, a picture of each, a page."""
    folder = where.prediction(name)
    (folder / "pictures").mkdir(parents=True)
    columns = {"source": ["files"] * len(sha256s), "photo_id": ["a", "b", "c"][: len(sha256s)]}
    pq.write_table(
        pa.table(columns | ({"sha256": pa.array(sha256s, pa.string())} if digests else {})),
        folder / "predictions.parquet",
    )
    for picture in ("pictures/00001.jpg", "report.html"):
        (folder / picture).write_bytes(b"secret-of-a")
    return folder


@pytest.mark.parametrize("how", ["the photo", "its owner", "its bytes", "bytes that no dataset has"])
def test_answers_about_removed_bytes_go_with_their_pictures(where: Layout, how: str) -> None:
    """A person's own folder held the very file: table, pictures and page go. Photos that share only a name stay, and
    the names of that person's files never become removals."""
    root = Root(where)
    sha256 = root.rows()["a"]["sha256"] if how != "bytes that no dataset has" else "f" * 64
    doomed = predicted(where, "doomed", ["e" * 64, sha256, None])
    kept = predicted(where, "kept", ["e" * 64, None])
    old = predicted(where, "old", ["e" * 64], digests=False)
    if "bytes" in how:
        remove(where, sha256=sha256)
    else:
        remove(where, source="flickr", **({"photo_id": "a"} if how == "the photo" else {"owner_id": "oa"}))
    assert purge.is_needed(where)
    assert purge.purge_removed(where).predictions == 1
    assert not doomed.exists()
    assert kept.is_dir()
    assert old.is_dir()
    assert not purge.is_needed(where)
    assert "files" not in removals.read(where)["source"].to_pylist()


def test_a_second_purge_does_nothing(where: Layout) -> None:
    """No file is touched, and nothing is counted."""
    Root(where)
    assert purge.purge_removed(where) == purge.Purged()
    remove(where, source="flickr", photo_id="a")
    purge.purge_removed(where)
    before = {path: path.stat().st_mtime_ns for path in where.root.rglob("*")}
    assert purge.purge_removed(where) == purge.Purged()
    assert {path: path.stat().st_mtime_ns for path in where.root.rglob("*")} == before


@pytest.mark.parametrize("what", ["owner_id", "sha256"])
def test_an_owner_and_bytes_become_removals_of_their_photos(where: Layout, what: str) -> None:
    """Everything of the photo goes, also from files that do not say whose it is; and its key alone is blocked then."""
    root = Root(where)
    row = root.rows()["a"]
    remove(where, **({"source": "flickr", "owner_id": "oa"} if what == "owner_id" else {"sha256": row["sha256"]}))
    assert purge.purge_removed(where).photos == 1
    assert traces(where) == []
    assert removals.blocked(where).is_blocked("flickr", "a")
    assert is_sound(root)


def test_bytes_that_another_photo_has_stay_until_they_are_removed(where: Layout) -> None:
    """A photo of another dataset keeps its file, and what was turned from it; removing the bytes takes both photos."""
    first, second = Root(where), Root(where, "towns", "tbcd")
    row = first.rows()["a"]
    files = [where.blob(row[name], "JPEG") for name in ("sha256", "blob")]
    remove(where, source="flickr", photo_id="a")
    purged = purge.purge_removed(where)
    assert (purged.blobs, purged.datasets) == (0, ("crops",))
    assert all(file.is_file() for file in files)
    assert second.run_dir.joinpath("report.html").is_file()
    assert not first.run_dir.joinpath("report.html").exists()
    assert traces(where) == []
    assert second.rows()["t"]["title"] == "Title of t"
    remove(where, sha256=row["sha256"])
    assert purge.purge_removed(where).blobs == 2
    assert not any(file.exists() for file in files)
    assert traces(where, ("Title of t", "Owner of t", "secret-of-t"), "t") == []
    assert second.rows()["b"]["title"] == "Title of b"


@pytest.mark.parametrize("what", ["sha256", "photo_id"])
def test_bytes_that_no_row_names_go_with_what_is_removed(where: Layout, what: str) -> None:
    """Of a download or a rotation that was killed before it noted them: they may be the removed ones. A file that only
    an earlier row of a photo names stays, and so do all while a snapshot cannot be read or a dataset is being begun."""
    root = Root(where)
    row = root.rows()["b"]
    orphan, other, earlier = (where.blob(blobs.put(where, jpeg(seed), "JPEG"), "JPEG") for seed in (500, 501, 502))
    key = {"source": "flickr", "photo_id": "b", "attempt": -1, "fetched_at": NOW}
    root.ledger("attempts", [key | {"sha256": earlier.stem, "format": "JPEG"}])
    shutil.rmtree(where.root / "stages" / "attempts")  # the ledger alone names it
    assert not purge.is_needed(where)
    remove(where, **({"sha256": orphan.stem} if what == "sha256" else {"source": "flickr", "photo_id": "a"}))
    assert purge.is_needed(where)
    damaged = where.snapshot("crops", 1) / "rejected.parquet"
    rows = damaged.read_bytes()
    damaged.write_bytes(b"PAR1 half")
    assert storage.purge.orphans(where) == []
    damaged.write_bytes(rows)
    left = storage.purge.remains(where)
    assert purge.delete_blobs(where, left, held=[]) == len([orphan] if what == "sha256" else ["a", "a turned"])
    assert other.is_file()

    orphan.write_bytes(jpeg(500))
    purge.purge_removed(where)
    assert not orphan.exists()
    assert not other.exists()
    assert earlier.is_file()
    assert all(where.blob(row[name], "JPEG").is_file() for name in ("sha256", "blob"))
    assert not purge.is_needed(where)


class CutError(Exception):
    """The power fails."""


@pytest.mark.parametrize("operations", range(0, 33, 3))
def test_an_interrupted_purge_is_finished_by_the_next(
    where: Layout, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    """Cut after any number of changes to the disk: no snapshot is lost, no photo vanishes, and all goes in the end."""
    monkeypatch.setattr(purge, "dataset_report", lambda *args, **more: "<p></p>")
    root = Root(where)
    fetched = root.photo("z") | {"owner_id": "oa"}  # and not yet curated: its ledger alone knows which file it has
    root.find([fetched])
    shutil.rmtree(where.root / "stages" / "attempts")
    predicted(where, "own", [fetched["sha256"]])
    root.begin("killed")
    remove(where, source="flickr", owner_id="oa")
    left = [operations]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if left[0] <= 0:
                raise CutError
            left[0] -= 1
            return change(*args, **options)

        return wrapped

    with monkeypatch.context() as power:
        power.setattr(os, "replace", counted(os.replace))
        power.setattr(shutil, "rmtree", counted(shutil.rmtree))
        power.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(CutError):
            purge.purge_removed(where)
    assert set(root.rows()) == set("abcd"), "every key is there, whatever happened"
    purge.purge_removed(where)
    assert traces(where) == []
    assert sorted(row["photo_id"] for row in published(where, "crops", 1).to_pylist()) == [*"abcd"]
    assert is_sound(root)
    assert not where.blob(fetched["sha256"], "JPEG").exists()
    assert not where.prediction("own").exists()
    assert not where.run("killed").exists()
    assert purge.purge_removed(where) == purge.Purged()


def test_what_was_adopted_once_is_not_adopted_again(where: Layout) -> None:
    """A listing that comes back from a backup of the stages does not bring its rows back into the ledger."""
    root = Root(where)
    [kept] = ledger.files(where, "crops", "listings")
    stages = where.root / "stages" / "listings"
    [listing] = stages.glob("*.parquet")
    data = listing.read_bytes()
    ref = manifest.write(where, "listings", manifest.read_file(listing))
    remove(where, source="flickr", photo_id="a")
    purge.purge_removed(where)
    listing.write_bytes(data)
    assert not ledger.adopt(where, root.name, ref)
    assert [row["photo_id"] for row in ledger.read(where, "crops", "listings").to_pylist()] == [*"bcd"]
    assert kept.is_file()


def test_a_snapshot_without_later_columns_is_scrubbed_too(where: Layout) -> None:
    """Versions that were published before a column existed keep their columns, and lose their photo."""
    root = Root(where)
    folder = where.snapshot("crops", 1)
    for part in (*SPLITS, "rejected"):
        table = manifest.read_file(folder / f"{part}.parquet").drop_columns(["is_grey"])
        manifest.write_parquet(folder / f"{part}.parquet", table, "publish")
    remove(where, source="flickr", photo_id="a")
    purge.purge_removed(where)
    assert traces(where) == []
    table = manifest.read_file(folder / "rejected.parquet")
    assert "is_grey" not in table.column_names
    assert [row["reason"] for row in table.to_pylist()] == ["removed"]
    assert catalog.card(where, root.name, 1)["removed"] == 1


def test_a_damaged_file_and_a_draft_stop_no_purge(where: Layout) -> None:
    """What cannot be read is passed over; the rest goes."""
    root = Root(where)
    damaged = where.stage("measure", "ab" * 32)
    draft = where.root / "packs" / ".1.part" / "train.parquet"
    for file in (damaged, draft):
        write_bytes(file, b"PAR1 half")
    remove(where, source="flickr", photo_id="a")
    assert purge.purge_removed(where).photos == 1
    assert traces(where, photo_id="a") == []
    assert is_sound(root)
    assert draft.is_file(), "somebody may be writing it"


def test_a_pack_that_holds_a_removed_photo_does_not_open(where: Layout, root: Layout) -> None:
    """One that came back from a backup is refused by name, and none is made of a selection that holds one."""
    made = Root(where)
    backup = where.root.parent / f"{where.root.name}-backup"
    shutil.copytree(made.pack_dir, backup)
    check_allowed(where, backup)
    remove(where, source="flickr", photo_id="a")
    purge.purge_removed(where)
    assert not made.pack_dir.exists()
    with pytest.raises(RemovedPhoto, match="flickr/a"):
        check_allowed(where, backup)
    key = f"pack-{NOW:%s}"
    removals.add(root, [{"source": "purge", "photo_id": key, "removed_at": NOW}])
    selection = manifest.write_rows(root, "selection", [{"source": "purge", "photo_id": key, "split": "train"}])
    with pytest.raises(RemovedPhoto, match="what is to be packed"):
        pack.fn(selection, 8, 12)


def test_a_blocked_photo_is_never_published(where: Layout) -> None:
    """A photo that was removed while a refresh ran: the refresh ends in a sentence, and publishes nothing."""
    root = Root(where)
    remove(where, source="flickr", photo_id="a")
    rows = [root.photo(photo) for photo in "abcde"]
    with pytest.raises(RemovedPhoto, match=r"next version of 'crops' holds 1 removed"):
        root.publish(rows)
    assert catalog.versions(where, "crops") == [1]


def test_the_version_after_a_purge_is_published_and_the_gate_is_calm(where: Layout) -> None:
    """A refresh after most photos were removed is no suspicious jump; the one after it finds nothing new."""
    photos = [chr(ord("b") + n) for n in range(25)]
    root = Root(where, photos="".join(photos))
    for photo in photos[:15]:
        remove(where, source="flickr", owner_id=f"o{photo}")
    purge.purge_removed(where)
    left = [root.photo(photo) for photo in photos[15:]]
    root.publish(left)
    root.publish(left)
    assert catalog.versions(where, "crops") == [1, 2]
    assert json.loads((where.snapshot("crops", 2) / "snapshot.json").read_text())["counts"]["rejected"] == 0


def test_the_report_of_the_next_version_forgets_a_removed_photo(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """It showed what went since the version before, though the version itself never had the photo; once is enough."""
    root = Root(where)
    root.publish([root.photo(photo) for photo in "bcd"])
    page, rows = where.snapshot("crops", 2) / "report.html", where.snapshot("crops", 2) / "train.parquet"
    assert "Title of a" not in str(manifest.read_file(rows).to_pylist())
    page.write_text("<p>No longer there: Title of a</p>")
    before = rows.read_bytes()
    remove(where, source="flickr", photo_id="a")
    with monkeypatch.context() as power:
        power.setattr(purge, "renew_report", cut)
        with pytest.raises(CutError):
            purge.purge_removed(where)
    assert purge.is_needed(where), "whatever was scrubbed before"
    assert purge.purge_removed(where).snapshots == 1
    assert traces(where) == []
    assert "Title of b" in page.read_text()
    assert rows.read_bytes() == before
    assert snapshots.verify(where, "crops", 2) == []
    assert not purge.is_needed(where)
    root.publish([root.photo(photo) for photo in "bcde"])
    root.publish([root.photo(photo) for photo in "bcdef"])
    assert purge.purge_removed(where) == purge.Purged(), "a report that was made later never showed it"


def cut(*arguments: Any) -> Any:
    raise CutError


def test_no_row_names_a_removed_owner(where: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the group of others, in any version, ledger or stage; and these keep their split, also if it was cut."""
    root = Root(where)
    group = {"group_id": "owner:flickr/oa", "split": "train"}
    rows = [root.photo(photo) | group for photo in "abt"] + [root.photo("c")]
    rules = splits.rules_digest({"salt": "x"})
    joined = manifest.write_rows(where, "publish", rows)
    page = manifest.file_ref(where, where.root / "stages" / "report" / "page.html")
    publish.publish_snapshot(where, "crops", {"split": {"salt": "x"}}, joined, {"report.html": page})
    splits.grant(where, "crops")
    alone = {"source": "flickr", "photo_id": "b", "rules": "others", "version": 2, **group}  # named, without the photo
    root.ledger("splits", [alone, alone | {"version": 9}])
    remove(where, source="flickr", owner_id="oa")
    with monkeypatch.context() as power:
        power.setattr(purge.purge, "rewrite", cut)
        with pytest.raises(CutError):
            purge.purge_removed(where)
    purge.purge_removed(where)
    assert traces(where, ("owner:flickr/oa",)) == []
    now = {row["photo_id"]: row["group_id"] for row in published(where, "crops", 2).to_pylist()}
    assert now == {"a": None, "b": "owner:flickr/ob", "c": "oc", "t": "owner:flickr/ob"}
    told = splits.given(where, "crops", rules).to_pylist()
    assert {row["photo_id"]: (row["split"], row["group_id"]) for row in told} == {
        "b": ("train", "owner:flickr/ob"), "t": ("train", "owner:flickr/ob"), "c": ("val", "oc"),
    }  # fmt: skip
    last = [row for row in ledger.read(where, "crops", "splits").to_pylist() if row["version"] == 9]
    assert [row["group_id"] for row in last] == ["photo:flickr/b"], "of a version that is no more"
    assert snapshots.verify(where, "crops", 2) == []
    assert not splits.grant(where, "crops"), "the ledger says what the version does"
    assert purge.purge_removed(where) == purge.Purged()
