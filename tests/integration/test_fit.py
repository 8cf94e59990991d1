"""The command ``python -m models.fit``: trains, evaluates, stops, resumes, and says why it cannot go on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from models import fit
from models.recipes import ModelSpec, OptimiserSpec, PackSpec, Recipe, ScaleMatching, resolve

FRAME = (24, 36)
WAIT_S = 60


def tiny_recipe(**changes: Any) -> Recipe:
    """The narrow recipe, made for frames of 24 x 36 and a second of training."""
    base = resolve("crops_thumbnail_narrow")
    tiny = replace(
        base,
        name="tiny",
        model=ModelSpec("crop_thumbnail", (1, 1), (8, 16), "3x3", 12, 18, embedding=16, hidden=(32,)),
        pack=PackSpec(*FRAME),
        scale_matching=ScaleMatching(18, 18, 0.01),
        optimiser=OptimiserSpec("adamw", lr=5e-3, schedule="one_cycle"),
        evaluation=replace(base.evaluation, crops_per_photo=3, bootstrap_replicates=200),
        batch_size=16,
        epochs=2,
    )
    return replace(tiny, **changes)


def vignetted(rng: np.random.Generator, count: int) -> np.ndarray:
    """Flat frames with some noise, darker towards the corners: the size and the place of a crop show."""
    y, x = np.mgrid[-1 : 1 : FRAME[0] * 1j, -1 : 1 : FRAME[1] * 1j]
    gain = 1 - 0.4 * (x**2 + y**2)
    frames = rng.uniform(150, 250, (count, 1, 1, 3)) * gain[..., None] + rng.normal(0, 4, (count, *FRAME, 3))
    return frames.clip(0, 255).astype(np.uint8)


def write_pack(folder: Path, draw: Callable[[np.random.Generator, int], np.ndarray], counts: dict[str, int]) -> Path:
    """A pack as ``models/loader.py`` describes it, of the frames that ``draw`` makes."""
    folder.mkdir()
    splits = {}
    for number, (name, count) in enumerate(counts.items()):
        np.save(folder / f"{name}.npy", draw(np.random.default_rng(number), count))
        who = {"source": ["camera"] * count, "photo_id": [f"{name}-{n}" for n in range(count)]}
        pq.write_table(pa.table(who), folder / f"{name}.parquet")
        files = {"frames": f"{name}.npy", "rows": f"{name}.parquet"}
        digests = {f"{k}_sha256": hashlib.sha256((folder / f).read_bytes()).hexdigest() for k, f in files.items()}
        splits[name] = {"photos": count, **files, **digests}
    about = {"version": 1, "frame_height": FRAME[0], "frame_width": FRAME[1], "splits": splits}
    (folder / "pack.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """A small pack of vignetted frames."""
    return write_pack(tmp_path_factory.mktemp("packs") / "pack", vignetted, {"train": 64, "val": 16, "test": 24})


@pytest.fixture
def run_here(monkeypatch, tmp_path) -> Callable[..., int]:
    """Runs the command in this process: the exit code. (Signals and the parent are left alone.)"""
    monkeypatch.setattr(fit.StopRequest, "install", lambda self: None)

    def run(run_dir: Path, pack: Path, recipe: Any, **values: Any) -> int:
        return fit.main([str(write_request(tmp_path / "run.json", run_dir, pack, recipe, **values))])

    return run


def write_request(path: Path, run_dir: Path, pack: Path, recipe: Any, **values: Any) -> Path:
    """A RUN.json for one CPU thread."""
    recipe = recipe.as_dict() if isinstance(recipe, Recipe) else recipe
    request = {"run_id": "r", "run_dir": str(run_dir), "pack_dir": str(pack), "recipe": recipe}
    path.write_text(json.dumps({**request, "device": "cpu", "threads": 1, **values}))
    return path


def start(request: Path, *, through_parent: bool = False) -> subprocess.Popen[bytes]:
    """The command in a process of its own; with ``through_parent`` as the child of the process that is returned."""
    command = [sys.executable, "-m", "models.fit", str(request)]
    if through_parent:
        command = [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"]
    return subprocess.Popen(command)


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl of one kind."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [found for line in lines if line.endswith("\n") and (found := json.loads(line))["event"] == kind]


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once ``holds``; fail if that takes too long."""
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)


def step_of(run_dir: Path, role: str = "last") -> Path:
    """The folder of a run's checkpoint."""
    index = json.loads((run_dir / "checkpoint" / "index.json").read_text())
    return run_dir / "checkpoint" / index[role]


def error_of(run_dir: Path) -> dict[str, Any]:
    """What error.json says."""
    return json.loads((run_dir / "error.json").read_text())


def test_train_and_evaluate(run_here, pack, tmp_path):
    """A run learns the vignette, leaves every file that the report reads, and beats the baselines by its interval."""
    run_dir, recipe = tmp_path / "run", tiny_recipe(epochs=40)
    assert run_here(run_dir, pack, recipe) == 0
    assert [line["epoch"] for line in events(run_dir, "epoch")] == list(range(1, 41))
    assert [len(events(run_dir, kind)) for kind in ("start", "end")] == [1, 1]
    card = json.loads((run_dir / "train.json").read_text())
    assert card["recipe"] == recipe.as_dict()
    assert card["final"]["steps"] == 40 * 4
    assert card["parameters"] > 1000

    assert run_here(run_dir, pack, recipe, job="evaluate") == 0
    found = json.loads((run_dir / "evaluation.json").read_text())
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert (found["photos"], found["samples"]) == (24, 96)
    assert len(figures) == 7
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures.values())
    assert figures["crop_auroc"]["beats_baseline"]
    assert figures["rectangle_iou_crops"]["beats_baseline"]
    assert figures["crop_accuracy"]["baseline"] == 0.5

    rows = pq.read_table(run_dir / "predictions.parquet")
    assert rows.num_rows == 96
    assert {"source", "photo_id", "split", "sample", "pred_size_factor", "crop_probability"} <= set(rows.column_names)
    whole = rows.filter(pa.compute.invert(rows["is_crop"]))
    assert whole.select(["x1", "x2", "y1", "y2"]).to_pylist() == [{"x1": 0, "x2": 1, "y1": 0, "y2": 1}] * 24
    assert pa.compute.sum(whole["weight"]).as_py() == pytest.approx(12)


def test_a_run_that_is_killed_ends_with_the_same_bits(run_here, pack, tmp_path):
    """Orphaned, killed and told to stop on the way, a resumed run ends bit-identical to one that was left alone."""
    recipe = tiny_recipe(epochs=60)
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    request = write_request(tmp_path / "broken.json", broken, pack, recipe)

    parent = start(request, through_parent=True)
    wait_until(lambda: len(events(broken, "epoch")) > 2)
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(str(request)))
    orphaned = json.loads((step_of(broken) / "state.json").read_text())["progress"]

    killed = start(request)
    wait_until(lambda: len(events(broken, "start")) == 2 and events(broken, "epoch")[-1]["step"] > orphaned["step"])
    killed.kill()
    assert killed.wait() == -signal.SIGKILL

    stopped = start(request)
    wait_until(lambda: len(events(broken, "start")) == 3)
    stopped.terminate()
    assert stopped.wait(WAIT_S) == 143
    assert not (broken / "train.json").exists()
    assert events(broken, "epoch")[-1]["epoch"] < 60

    assert run_here(broken, pack, recipe) == 0
    assert run_here(alone, pack, recipe) == 0
    for role in ("last", "best"):
        ours, theirs = (load_file(step_of(run, role) / "weights.safetensors") for run in (broken, alone))
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    loss = {line["epoch"]: line["loss"] for line in events(broken, "epoch")}
    assert loss == {line["epoch"]: line["loss"] for line in events(alone, "epoch")}


def has_ended(argument: str) -> bool:
    """Whether no live process has ``argument`` on its command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if argument in (entry / "cmdline").read_text().split("\0"):
                return False
        except OSError:
            continue
    return True


def test_a_damaged_pack_is_refused(run_here, pack, tmp_path):
    """One changed byte, a lost file, another frame size: each ends with its own code and a sentence in error.json."""
    run_dir, damaged = tmp_path / "run", tmp_path / "damaged"
    write_pack(damaged, vignetted, {"train": 16, "val": 4, "test": 4})
    frames = damaged / "val.npy"
    frames.write_bytes(frames.read_bytes()[:-1] + b"\0")
    assert run_here(run_dir, damaged, tiny_recipe()) == 3
    assert error_of(run_dir)["type"] == "PackDamaged"
    assert "val.npy is damaged" in error_of(run_dir)["message"]
    frames.unlink()
    assert run_here(run_dir, damaged, tiny_recipe()) == 3
    assert run_here(run_dir, tmp_path / "nowhere", tiny_recipe()) == 3
    assert run_here(run_dir, pack, "crops_thumbnail_narrow") == 2
    assert "pack for this recipe" in error_of(run_dir)["message"]


def test_too_few_photos_are_refused(run_here, tmp_path):
    """A split that is too small names itself and what it needs."""
    small = write_pack(tmp_path / "small", vignetted, {"train": 16, "val": 1, "test": 4})
    assert run_here(tmp_path / "run", small, tiny_recipe()) == 2
    assert error_of(tmp_path / "run")["fields"] == {"split": "val", "photos": 1, "needed": 2}


def test_another_recipes_checkpoint_is_refused(run_here, pack, tmp_path):
    """A run folder belongs to one recipe and seed; evaluating an untrained run is refused too."""
    run_dir, recipe = tmp_path / "run", tiny_recipe(epochs=1)
    assert run_here(run_dir, pack, recipe, job="evaluate") == 4
    assert run_here(run_dir, pack, recipe) == 0
    assert not (run_dir / "error.json").exists()
    assert run_here(run_dir, pack, tiny_recipe(epochs=2)) == 4
    assert error_of(run_dir)["fields"]["key"] == "recipe_digest"
    assert run_here(run_dir, pack, recipe, seed=1) == 4


def test_constant_outputs_fail_the_run(run_here, tmp_path):
    """Frames that all look the same give constant outputs, and that is an error, not a result."""
    grey = write_pack(tmp_path / "grey", lambda _, n: np.full((n, *FRAME, 3), 128, np.uint8), {"train": 16, "val": 4})
    recipe = tiny_recipe(epochs=4, scale_matching=ScaleMatching(18, 18, 0.0), constant_outputs_after_epoch=1)
    assert run_here(tmp_path / "run", grey, recipe) == 8
    assert error_of(tmp_path / "run")["type"] == "ConstantOutputs"
    assert len(events(tmp_path / "run", "epoch")) == 1


def test_divergence_fails_the_run(run_here, pack, tmp_path):
    """A loss that is no number any more stops the run and names the step."""
    recipe = tiny_recipe(optimiser=OptimiserSpec("sgd", lr=1e25, schedule="constant"))
    assert run_here(tmp_path / "run", pack, recipe) == 7
    assert error_of(tmp_path / "run")["fields"]["step"] >= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": "nothing"}, "choose one of crops_thumbnail"),
        ({"job": "predict"}, "choose one of train, evaluate"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"threads": 0}, "threads cannot be 0"),
        ({"epochs": 3}, "unknown key 'epochs'"),
    ],
)
def test_an_impossible_request_is_refused(run_here, pack, tmp_path, capsys, values, words):
    """Each wrong value is named, with what would be right."""
    assert run_here(tmp_path / "run", pack, **{"recipe": tiny_recipe(), **values}) == 2
    assert words in capsys.readouterr().err


def test_a_missing_device_is_named(run_here, pack, tmp_path, monkeypatch):
    """CUDA is asked for where there is none."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_here(tmp_path / "run", pack, tiny_recipe(), device="cuda") == 5


def test_out_of_memory_names_the_batch(run_here, pack, tmp_path, monkeypatch):
    """What torch raises when memory runs out comes back with the batch size."""
    import torch

    def run_out(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("models.jobs.train", run_out)
    assert run_here(tmp_path / "run", pack, tiny_recipe()) == 6
    assert error_of(tmp_path / "run")["fields"]["batch_size"] == 16
