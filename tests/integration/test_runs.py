"""The folders of runs: which names they may have, and what is said of one that is damaged."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.train import start_weights, weights_of
from models.learnt import file_beside
from storage import removals
from storage.layout import Layout
from storage.records import PackRef
from tasks import train
from tasks.errors import ConfigError, OutOfMemory, RemovedPhoto
from tasks.predict import recipe_of
from tasks.train import best_weights, is_whole, run_id_of, start_of

BEST = "epoch-0001-step-0000002"


@pytest.fixture
def run_dir(root: Layout) -> Path:
    """A folder that looks like that of a finished run."""
    folder = root.run("looks-finished")
    checkpoint = folder / "checkpoint" / BEST
    checkpoint.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text("{}")
    (checkpoint / "weights.safetensors").write_bytes(b"weights")
    state = json.dumps({"files": {"weights.safetensors": hashlib.sha256(b"weights").hexdigest()}})
    (checkpoint / "state.json").write_text(state)
    kept = [{"name": BEST, "state_sha256": hashlib.sha256(state.encode()).hexdigest(), "val_loss": 0.5}]
    (folder / "checkpoint" / "index.json").write_text(json.dumps({"best": BEST, "last": BEST, "kept": kept}))
    return folder


@pytest.mark.parametrize(
    "run_id", ["../datasets/x", "/etc", "..", ".", "", "a/b", "a\0b", "a\nb", "abc\n", ".hidden", "-x", "x" * 300, "é"]
)
def test_a_run_id_cannot_leave_the_folder_of_runs(root: Layout, run_id: str) -> None:
    """Whatever is no plain name is refused in one sentence, wherever it is asked for."""
    for ask in (root.run, weights_of, start_weights, lambda given: recipe_of(root, given)):
        with pytest.raises(ConfigError, match="is no id of a run") as refusal:
            ask(run_id)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("run_id", ["0123456789abcdef", "tiny-run", "shuffled_narrow-0", "x" * 64])
def test_plain_names_are_ids(root: Layout, run_id: str) -> None:
    """Ours are hexadecimal; who runs models.fit by hand may name the folder."""
    assert root.run(run_id) == root.root / "runs" / run_id


@pytest.mark.parametrize("index", [None, "", "{", "[]", "{}", '{"best": null}', '{"best": "gone"}', '{"best": "../x"}'])
def test_a_damaged_index_is_one_sentence(run_dir: Path, index: str | None) -> None:
    """Missing, cut, or naming what is not there or not a checkpoint of this run."""
    file = run_dir / "checkpoint" / "index.json"
    outside = run_dir / "x" / "weights.safetensors"
    outside.parent.mkdir(exist_ok=True)
    outside.touch()
    assert weights_of(run_dir.name).path.endswith(f"{BEST}/weights.safetensors")
    file.unlink() if index is None else file.write_text(index)
    with pytest.raises(ConfigError, match=r"index\.json.*train again") as refusal:
        weights_of(run_dir.name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("card", ["", "{", "{}", "[]", '{"recipe": {}}', '{"recipe": 3}'])
def test_a_damaged_card_is_one_sentence(root: Layout, run_dir: Path, card: str) -> None:
    """A train.json that tells no recipe."""
    (run_dir / "train.json").write_text(card)
    with pytest.raises(ConfigError, match=r"train\.json.* tells no whole recipe of this version .*train again"):
        recipe_of(root, run_dir.name)


def test_the_weights_are_those_of_the_best_epoch(run_dir: Path) -> None:
    """As the index says."""
    assert best_weights(run_dir / "checkpoint").parent.name == BEST


def test_a_whole_run_is_taken_as_it_is(root: Layout, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That its cached result is gone costs no training: nothing is started, nothing deleted."""
    monkeypatch.setattr(train, "run_fit", lambda *given: pytest.fail("trained again"))
    monkeypatch.setattr(train, "run_id_of", lambda *given: run_dir.name)
    pack = PackRef(digest="none", sha256="0" * 64, size_bytes=0, photos={})
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    found = train.train.fn(pack, {"name": "tiny"}, 0)
    assert (found.run_id, found.weights.sha256) == (run_dir.name, hashlib.sha256(b"weights").hexdigest())
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("is_purged", "is_failing"), [(False, False), (True, False), (False, True)])
def test_a_run_whose_photo_was_removed_meanwhile_is_not_kept(
    tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, is_purged: bool, is_failing: bool
) -> None:
    """Neither a card nor weights stay, also where the takedown has deleted the pack before the training ended, or it
    ended badly. One that was killed is cleared by the next try; one that had ended before stays.
    """
    where, pack = Layout(tmp_path), PackRef(digest="p", sha256="0" * 64, size_bytes=0, photos={})
    run_dir = Path(shutil.copytree(run_dir, where.run(run_dir.name)))
    folder, photo = where.pack(pack.digest), {"source": "flickr", "photo_id": "taken", "owner_id": "owner"}
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([photo]), folder / "train.parquet")
    (folder / "pack.json").write_text("{}")
    (run_dir / "train.json").unlink()

    def end(job: str, run_dir: Path, request: object, follow: object) -> None:
        removals.add(where, [photo | {"owner_id": None, "reason": "asked", "removed_at": datetime.now(UTC)}])
        if is_purged:
            shutil.rmtree(folder)
        if is_failing:
            raise OutOfMemory("too large")
        (run_dir / "train.json").write_text("{}")

    monkeypatch.setattr(train, "layout", lambda: where)
    monkeypatch.setattr(train, "run_fit", end)
    monkeypatch.setattr(train, "follower", lambda *given: print)
    monkeypatch.setattr(train, "run_id_of", lambda *given: run_dir.name)
    (run_dir / "metrics.jsonl").touch()
    for has_ended in (False, False, True):  # meanwhile; before a try that goes on; before a try that was whole
        if not is_purged:
            (run_dir / "checkpoint").mkdir(exist_ok=True)
        if has_ended:
            (run_dir / "train.json").write_text("{}")
        with pytest.raises(RemovedPhoto, match="run 'looks-finished' holds 1 removed photos, such as flickr/taken"):
            train.train.fn(pack, {"name": "tiny"}, 0)
        left = {name for name in ("train.json", "metrics.jsonl", "checkpoint") if (run_dir / name).exists()}
        assert left == ({"train.json", "checkpoint"} if has_ended else set())
        if is_purged:
            break


def test_a_training_that_starts_over_is_not_judged_yet(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the weights were that are gone says nothing of those to come."""
    judged = [run_dir / name for name in ("evaluation.json", "predictions.parquet", "scores.parquet")]
    for path in judged:
        path.write_text("{}")
    best_weights(run_dir / "checkpoint").unlink()

    def start(job: str, run_dir: Path, request: object, follow: object) -> None:
        raise OutOfMemory("too large")

    monkeypatch.setattr(train, "run_fit", start)
    monkeypatch.setattr(train, "follower", lambda *given: print)
    monkeypatch.setattr(train, "run_id_of", lambda *given: run_dir.name)
    with pytest.raises(OutOfMemory):
        train.train.fn(PackRef(digest="none", sha256="0" * 64, size_bytes=0, photos={}), {"name": "tiny"}, 0)
    assert not any(path.exists() for path in judged)
    shutil.rmtree(run_dir)


def test_a_run_starts_from_a_file_of_weights(tmp_path: Path, own_root: Layout) -> None:
    """It is kept once, by its bytes, wherever it lay: other bytes are another run. Without a file it is a sentence."""
    pack = PackRef(digest="none", sha256="0" * 64, size_bytes=0, photos={})
    refs = []
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"other")):
        (tmp_path / name).write_bytes(content)
        refs.append(start_weights(str(tmp_path / name)))
        (tmp_path / name).unlink()
        assert (own_root.root / refs[-1].path).read_bytes() == content
    assert refs[0] == refs[1]
    assert len({run_id_of(pack, {}, 0, None, [start_of(own_root, ref)]) for ref in refs}) == 2
    for missing in ("a.pth", "/nowhere/a.safetensors", "a\0b.pth", "~nobody-there/a.pth", f"{tmp_path}/folder.pth"):
        (tmp_path / "folder.pth").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=r"there are no weights to be read at .*correct start_from") as refusal:
            start_weights(missing)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match="there is no finished run 'a-run' to start from"):
        start_weights("a-run")
    assert not list(own_root.partial.iterdir())


def test_a_file_of_weights_brings_what_it_has_learnt(tmp_path: Path, own_root: Layout, run_dir: Path) -> None:
    """Its account lies by the copy as it does in a run, and the same weights without one are another start."""
    account = run_dir / "checkpoint" / "learnt.parquet"
    account.unlink(missing_ok=True)
    file = best_weights(run_dir / "checkpoint")
    without = start_of(own_root, start_weights(str(file)))
    account.write_bytes(b"photos")
    start = start_of(own_root, start_weights(str(file)))
    account.unlink()
    assert without.learnt is None
    assert start.learnt is not None
    assert start.weights.sha256 == without.weights.sha256
    assert start.learnt.sha256 == hashlib.sha256(b"photos").hexdigest()
    assert file_beside(own_root.root / start.weights.path).read_bytes() == b"photos"


def test_what_a_start_has_learnt_decides_too(root: Layout, run_dir: Path) -> None:
    """The same weights with another account of what they learnt are another start: another run, and no cached one."""
    pack = PackRef(digest="none", sha256="0" * 64, size_bytes=0, photos={})
    account, starts = run_dir / "checkpoint" / "learnt.parquet", []
    account.unlink(missing_ok=True)
    for content in (None, b"one", b"other"):
        if content is not None:
            account.write_bytes(content)
        starts.append(start_of(root, weights_of(run_dir.name)))
    account.unlink()
    assert starts[0].learnt is None
    assert len({run_id_of(pack, {}, 0, None, [start]) for start in starts}) == 3
    request = train.fit_request(root, "x", pack, {}, 0, None, starts[1:2])
    assert request["start_from"] == [str(best_weights(run_dir / "checkpoint"))]


@pytest.mark.parametrize(
    "file", ["train.json", f"checkpoint/{BEST}/weights.safetensors", f"checkpoint/{BEST}/state.json"]
)
@pytest.mark.parametrize("harm", ["delete", "change"])
def test_a_run_that_lost_something_is_not_whole(run_dir: Path, file: str, harm: str) -> None:
    """Each file of the best checkpoint is compared with its digest."""
    assert is_whole(run_dir)
    (run_dir / file).unlink() if harm == "delete" else (run_dir / file).write_text("{")
    assert not is_whole(run_dir)


def test_the_artifact_moves_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every few seconds, by steps; and at the end of each epoch."""
    shown: list[float] = []
    now = [0.0]
    monkeypatch.setattr(train, "create_progress_artifact", lambda *given, **named: "id")
    monkeypatch.setattr(train, "update_progress_artifact", lambda artifact, progress: shown.append(progress))
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    follow = train.follower("tiny", "run")
    for step in range(1, 11):
        now[0] += 1.0
        follow({"event": "progress", "step": step, "steps": 20, "epoch": 1})
    follow({"event": "epoch", "epoch": 1, "epochs": 2, "loss": 1.0, "val_loss": 1.0})
    assert shown == [25.0, 50.0, 50.0]
