"""The command ``python -m models.fit``: trains, evaluates, and says in one sentence why it cannot go on."""

import fcntl
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import fit, networks, training
from models.checkpoint import best_weights
from models.specs import Freeze, GuardSpec, OptimiserSpec

COUNTS = {"train": 48, "val": 12, "test": 12}
Run = Callable[..., int]


@pytest.fixture(scope="module")
def pack(fits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three colours, and which one each is."""
    return fits.write_pack(tmp_path_factory.mktemp("packs") / "pack", COUNTS)


@pytest.fixture
def run_here(fits: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs the command in this process: the exit code. (Signals and the parent are left alone.)"""
    monkeypatch.setattr(fit.StopRequest, "install", lambda self: None)

    def run(run_dir: Path, pack: Path, recipe: Any, **values: Any) -> int:
        return fit.main([str(fits.write_request(tmp_path / "run.json", run_dir, pack, recipe, **values))])

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def error_of(run_dir: Path) -> dict[str, Any]:
    """What error.json says."""
    return json.loads((run_dir / "error.json").read_text())


def test_train_and_evaluate(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """A run learns the colours, leaves every file that the report reads, and beats the baseline by its interval."""
    run_dir, recipe = tmp_path / "run", fits.tiny_recipe(epochs=15)
    assert run_here(run_dir, pack, recipe) == 0
    assert [line["epoch"] for line in fits.events(run_dir, "epoch")] == list(range(1, 16))
    assert [len(fits.events(run_dir, kind)) for kind in ("start", "end")] == [1, 1]
    card = json.loads((run_dir / "train.json").read_text())
    assert card["recipe"] == recipe.as_dict()
    assert card["final"]["steps"] == 15 * 3
    assert card["classes"] == list(fits.LABELS)
    assert card["stopped_early"] is None
    assert card["start_from"] == []

    assert run_here(run_dir, pack, recipe, job="evaluate") == 0
    figures = {each["name"]: each for each in json.loads((run_dir / "evaluation.json").read_text())["figures"]}
    assert figures["accuracy"]["beats_baseline"]
    assert {"predictions.parquet", "scores.parquet"} <= {file.name for file in run_dir.iterdir()}


def test_a_run_starts_from_another(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """Weights come from a run's folder or a file wherever name and shape agree; from nothing that fits, none do."""
    first, second, recipe = tmp_path / "first", tmp_path / "second", fits.tiny_recipe(epochs=1)
    assert run_here(first, pack, recipe, seed=5) == 0
    assert run_here(second, pack, recipe, start_from=[str(first)]) == 0
    account = json.loads((second / "train.json").read_text())["start_from"]
    tensors = load_file(best_weights(first))
    assert [(each["file"], each["tensors"]) for each in account] == [("weights.safetensors", len(tensors))]
    assert run_here(second, pack, recipe) == 4
    assert error_of(second)["fields"]["key"] == "start_sha256s"

    del tensors["head.weight"]
    save_file({**tensors, "trunk.stem.0.weight": torch.zeros(1)}, tmp_path / "part.safetensors")
    model = networks.build_model(networks.system_of(recipe, fits.LABELS), 0, torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    [account] = networks.start_from(model, [tmp_path / "part.safetensors"])
    after = model.state_dict()
    assert account["tensors"] == len(tensors) - 2, "neither the stem nor a head of which a part is missing"
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert torch.equal(after["head.bias"], before["head.bias"])
    assert torch.equal(after["trunk.stem.1.weight"], tensors["trunk.stem.1.weight"])

    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for path, words in (("other.safetensors", "holds no tensor that fits"), ("run.json", "cannot be read as weights")):
        assert run_here(tmp_path / "third", pack, recipe, start_from=[str(tmp_path / path)]) == 2
        assert words in error_of(tmp_path / "third")["message"]


def swapped(pack: Path, folder: Path) -> Path:
    """The same pack with train and test exchanged."""
    shutil.copytree(pack, folder)
    card = json.loads((folder / "pack.json").read_text())
    splits = card["splits"]
    splits["train"], splits["test"] = splits["test"], splits["train"]
    (folder / "pack.json").write_text(json.dumps(card))
    return folder


def test_a_run_is_not_judged_by_what_its_start_learnt(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path
) -> None:
    """Photos that a start learnt, or a start of it, are refused as test; of a file from elsewhere nothing is known."""
    recipe, other = fits.tiny_recipe(epochs=1), swapped(pack, tmp_path / "swapped")
    few = fits.write_pack(tmp_path / "few", {**COUNTS, "train": 16})
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run_here(first, pack, recipe) == 0
    assert run_here(second, few, recipe, start_from=[str(first)]) == 0
    card = json.loads((second / "train.json").read_text())
    assert card["learnt"] == {"photos": 48, "are_all": True}
    assert [each["learnt_photos"] for each in card["start_from"]] == [48]
    for start in (second, best_weights(second)):
        assert run_here(third, other, recipe, start_from=[str(start)]) == 2
        assert "48 of 48 photos of test, such as camera/train-0, were learnt by" in error_of(third)["message"]
    assert not (third / "checkpoint").exists()

    shutil.copy(best_weights(second), tmp_path / "given.safetensors")
    assert run_here(third, other, recipe, start_from=[str(tmp_path / "given.safetensors")]) == 0
    card = json.loads((third / "train.json").read_text())
    assert card["learnt"] == {"photos": 12, "are_all": False}
    assert card["start_from"][0]["learnt_photos"] is None


@pytest.mark.parametrize("until_epoch", [None, 1])
def test_chance_is_not_frozen(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, until_epoch: int | None
) -> None:
    """A part that never learns has to be given: frozen as it was drawn, for good or until the last epoch has ended, it
    would only seem to be trained.
    """
    recipe = replace(fits.tiny_recipe(epochs=1), frozen=(Freeze("trunk.", until_epoch),))
    assert run_here(tmp_path / "chance", pack, recipe) == 2
    message = error_of(tmp_path / "chance")["message"]
    assert "freezes 'trunk.' for good, but no weights were given" in message
    assert "name runs or files of weights in start_from" in message
    assert run_here(tmp_path / "first", pack, fits.tiny_recipe(epochs=1), seed=5) == 0
    assert run_here(tmp_path / "second", pack, recipe, start_from=[str(tmp_path / "first")]) == 0


def test_a_pack_that_does_not_fit_is_refused(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """A changed frame, a lost file, frames of another kind: each ends with its own code and a sentence."""
    run_dir, damaged = tmp_path / "run", tmp_path / "damaged"
    fits.write_pack(damaged, COUNTS)
    frames = damaged / "val.npy"
    frames.write_bytes(frames.read_bytes()[:-1] + b"\0")
    assert run_here(run_dir, damaged, fits.tiny_recipe()) == 3
    assert "is damaged or was changed" in error_of(run_dir)["message"]
    frames.unlink()
    assert run_here(run_dir, damaged, fits.tiny_recipe()) == 3
    assert run_here(run_dir, tmp_path / "nowhere", fits.tiny_recipe()) == 3
    assert run_here(run_dir, pack, "categories_narrow") == 2
    assert "pack for this recipe" in error_of(run_dir)["message"]


def test_too_few_photos_are_refused(run_here: Run, fits: ModuleType, tmp_path: Path) -> None:
    """A split that is empty or too small names itself and what it needs; what cannot be judged is not trained."""
    for split, count, needed in (("train", 0, 8), ("val", 1, 2), ("test", 1, 2)):
        small = fits.write_pack(tmp_path / f"small-{split}", {**COUNTS, split: count})
        assert run_here(tmp_path / "run", small, fits.tiny_recipe()) == 2
        assert error_of(tmp_path / "run")["fields"] == {"split": split, "photos": count, "needed": needed}


def test_a_run_folder_belongs_to_one_process(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Whoever comes second is refused in one sentence and leaves no error.json; of ``torchrun`` the first counts."""
    monkeypatch.setattr(fit, "LOCK_PATIENCE_S", 0.0)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_here(tmp_path / "run", pack, fits.tiny_recipe(epochs=1)) == 2
        assert "another process works in the run folder" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        monkeypatch.setenv("RANK", "1")
        assert run_here(tmp_path / "run", pack, fits.tiny_recipe(epochs=1), job="export") == 0
        monkeypatch.setenv("RANK", "0")
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe(epochs=1)) == 0


def test_other_jobs_than_training_are_done_by_one_process(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by ``torchrun``, the first process looks for a learning rate as if alone: it waits for no other."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe(epochs=1), job="find_lr") == 0
    assert json.loads((tmp_path / "run" / "lr_finder.json").read_text())["processes"] == 1


@pytest.mark.parametrize("job", ["evaluate", "predict", "export"])
def test_every_job_ends_when_it_is_told_to(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """Exit code 143, and none of the job's files."""
    trained, place = tmp_path / "trained", tmp_path / "place"
    assert run_here(trained, pack, fits.tiny_recipe(epochs=1)) == 0
    run_dir = trained if job == "evaluate" else tmp_path / "run"
    before = {path.name for path in trained.iterdir()}
    photos = fits.write_pack(place, {"photos": 20}) if job == "predict" else pack
    monkeypatch.setattr(fit.StopRequest, "__call__", lambda self: True)
    values = {} if job == "evaluate" else {"trained": str(trained), "labels": None}
    assert run_here(run_dir, photos, fits.tiny_recipe(epochs=1), job=job, **values) == 143
    assert {path.name for path in run_dir.iterdir()} <= before


def test_an_export_to_a_full_disk_is_one_sentence(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """It ends with its own code, not with the process."""
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe(epochs=1)) == 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        values = {"job": "export", "trained": str(tmp_path / "run")}
        assert run_here(tmp_path / "export", pack, fits.tiny_recipe(epochs=1), **values) == 9
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no room to write" in error_of(tmp_path / "export")["message"]


def test_labels_that_cannot_be_learnt_are_refused(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """No labels, a photo without one, a label that train lacks: each is named before a step is made."""
    run_dir, recipe = tmp_path / "run", fits.tiny_recipe()
    rows = pq.read_table(pack / "labels.parquet").to_pylist()
    val = [row["photo_id"] for row in rows].index("val-0")
    strange = [*rows[:val], {**rows[val], "label": "mauve"}, *rows[val + 1 :]]
    test = [row["photo_id"] for row in rows].index("test-3")
    untested = [*rows[:test], {**rows[test], "label": "purple"}, *rows[test + 1 :]]
    for labels, words in (
        (rows[1:], "1 of 48 photos of train"), (strange, "'mauve'"), (untested, "'purple'"), (None, "48 of 48 photos"),
    ):  # fmt: skip
        path = tmp_path / "labels.parquet"
        if labels is not None:
            pq.write_table(fits.pa.Table.from_pylist(labels), path)
        assert run_here(run_dir, pack, recipe, labels=None if labels is None else str(path)) == 2
        assert words in error_of(run_dir)["message"]
    assert not (run_dir / "metrics.jsonl").exists()


def test_another_runs_checkpoint_is_refused(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """A run folder belongs to one recipe, seed, pack and labels; evaluating an untrained run is refused too."""
    run_dir, recipe = tmp_path / "run", fits.tiny_recipe(epochs=1)
    assert run_here(run_dir, pack, recipe, job="evaluate") == 4
    assert run_here(run_dir, pack, recipe) == 0
    assert not (run_dir / "error.json").exists()

    changed = fits.write_pack(tmp_path / "changed", {**COUNTS, "train": 47})
    rows = pq.read_table(pack / "labels.parquet").to_pylist()
    labels = tmp_path / "labels.parquet"
    pq.write_table(fits.pa.Table.from_pylist(rows[::-1]), labels)
    for key, words, place, its_recipe, values in (
        ("recipe_digest", "another recipe than this run's", pack, fits.tiny_recipe(epochs=2), {}),
        ("seed", "seed 0, not 1", pack, recipe, {"seed": 1}),
        ("pack_digest", "another pack than this run's", changed, recipe, {"labels": str(pack / "labels.parquet")}),
        ("labels_sha256", "other labels than this run's", pack, recipe, {"labels": str(labels)}),
    ):
        assert run_here(run_dir, place, its_recipe, **values) == 4
        assert error_of(run_dir)["fields"]["key"] == key
        assert f"was made with {words}: give the run a folder of its own" in error_of(run_dir)["message"]


def test_constant_outputs_fail_the_run(run_here: Run, fits: ModuleType, tmp_path: Path) -> None:
    """Frames that all look the same give constant outputs, and that is an error, not a result."""
    shape = (fits.FRAME.frame_height, fits.FRAME.frame_width, 3)
    grey = fits.write_pack(tmp_path / "grey", COUNTS, lambda _, label_N: np.full((len(label_N), *shape), 128, np.uint8))
    recipe = fits.tiny_recipe(epochs=4, guards=GuardSpec(constant_outputs_after_epoch=1))
    assert run_here(tmp_path / "run", grey, recipe) == 8
    assert error_of(tmp_path / "run")["type"] == "ConstantOutputs"


def test_divergence_fails_the_run(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """A loss that is no number any more stops the run and names the step."""
    recipe = fits.tiny_recipe(optimiser=OptimiserSpec("sgd", lr=1e25))
    assert run_here(tmp_path / "run", pack, recipe) == 7
    assert error_of(tmp_path / "run")["fields"]["step"] >= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": "nothing"}, "choose one of categories_"),
        ({"job": "dance"}, "choose one of train, evaluate"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"seed": 2**64}, "seed cannot be 18446744073709551616"),
        ({"threads": 0}, "threads cannot be 0"),
        ({"threads": 100_000}, "threads cannot be 100000: choose 1 to 1024"),
        ({"pack_dir": "a\0b"}, r"pack_dir cannot be 'a\x00b'"),
        ({"labels": "\ud800"}, r"labels cannot be '\ud800'"),
        ({"start_from": ["\0"]}, "start_from cannot be"),
        ({"labels": 3}, "labels cannot be 3"),
        ({"start_from": "a"}, "start_from cannot be 'a'"),
        ({"epochs": 3}, "unknown key 'epochs'"),
    ],
)
def test_an_impossible_request_is_refused(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, capsys: Any, values: dict[str, Any], words: str
) -> None:
    """Each wrong value is named, with what would be right."""
    assert run_here(tmp_path / "run", pack, **{"recipe": fits.tiny_recipe(), **values}) == 2
    assert words in capsys.readouterr().err


def test_a_missing_device_is_named(
    run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA is asked for where there is none, or more processes than GPUs are started."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe(), device="cuda") == 5
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe(), device="cuda") == 5
    assert "start 1 at most" in error_of(tmp_path / "run")["message"]


@pytest.mark.parametrize(
    ("room", "fits_at_once", "words"), [(5, 4, "set accumulate to 4"), (1, None, "smaller network")]
)
def test_out_of_memory_says_what_fits(
    run_here: Run,
    fits: ModuleType,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    fits_at_once: int | None,
    words: str,
) -> None:
    """Where memory ends beyond ``room`` photos, the error names the batch size and the largest half that fits."""

    class Small(fits.system.CategorySystem):
        def losses(self, outputs: Any, targets: Any) -> Any:
            if len(outputs["label"]) > room and not outputs["label"].is_leaf:
                raise torch.OutOfMemoryError("out of memory")
            return super().losses(outputs, targets)

    monkeypatch.setattr(training, "system_of", Small)
    assert run_here(tmp_path / "run", pack, fits.tiny_recipe()) == 6
    assert error_of(tmp_path / "run")["fields"] == {"batch_size": 16, "fits": fits_at_once, "device": "cpu"}
    assert words in error_of(tmp_path / "run")["message"]


def test_a_full_disk_leaves_the_last_checkpoint(run_here: Run, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """A disk that fills while a checkpoint is written is one sentence; the run goes on from the one before."""
    run_dir, recipe = tmp_path / "run", fits.tiny_recipe()
    assert run_here(tmp_path / "alone", pack, recipe) == 0
    size_bytes = best_weights(tmp_path / "alone").stat().st_size
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes // 2, before[1]))
        assert run_here(run_dir, pack, recipe) == 9
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no room to write" in error_of(run_dir)["message"]
    assert list((run_dir / "checkpoint").iterdir()) == []
    assert run_here(run_dir, pack, recipe) == 0
    ours, theirs = (load_file(best_weights(place)) for place in (run_dir, tmp_path / "alone"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
