"""Training that is killed, told to stop or orphaned, and goes on: real processes, and not a bit differs in the end."""

import json
import os
import random
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

COUNTS = {"train": 32, "val": 8, "test": 4}
KILLS, EPOCHS = 20, 20


@pytest.fixture(scope="module")
def pack(fits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three colours."""
    return fits.write_pack(tmp_path_factory.mktemp("packs") / "pack", COUNTS)


def epochs_done(fits: ModuleType, run_dir: Path) -> int:
    """The newest epoch of metrics.jsonl."""
    return max((line["epoch"] for line in fits.events(run_dir, "epoch")), default=0)


def has_draft(run_dir: Path, pid: int) -> bool:
    """Whether that process is amid writing a checkpoint."""
    return any((run_dir / "checkpoint").glob(f".draft-*-{pid}/*"))


def files_of(run_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of all checkpoints that the index names."""
    index = json.loads((run_dir / "checkpoint" / "index.json").read_text())
    folders = [run_dir / "checkpoint" / entry["name"] for entry in index["kept"]]
    files = [file for folder in folders for file in folder.glob("*.safetensors")]
    return {f"{file.parent.name}/{file.name}": load_file(file) for file in files}


def history_of(run_dir: Path) -> list[dict[str, Any]]:
    """The figures of all epochs, as the last checkpoint holds them."""
    index = json.loads((run_dir / "checkpoint" / "index.json").read_text())
    state = json.loads((run_dir / "checkpoint" / index["last"] / "state.json").read_text())
    return state["progress"]["history"]


def assert_same(fits: ModuleType, ours: Path, theirs: Path) -> None:
    """Weights, averages and optimiser of every checkpoint that stayed, and every figure of every epoch."""
    found, expected = files_of(ours), files_of(theirs)
    assert found.keys() == expected.keys()
    for name, tensors in expected.items():
        assert found[name].keys() == tensors.keys()
        assert all(found[name][key].tobytes() == tensors[key].tobytes() for key in tensors), name
    assert history_of(ours) == history_of(theirs)
    timing = {"at", "seconds", "photos_per_s"}
    lines = [{key: value for key, value in line.items() if key not in timing} for line in fits.events(ours, "epoch")]
    assert {line["epoch"] for line in lines} == set(range(1, EPOCHS + 1))
    alone = {line["epoch"]: line for line in fits.events(theirs, "epoch")}
    assert all(line == {key: alone[line["epoch"]][key] for key in line} for line in lines)


def test_a_run_that_is_killed_twenty_times_ends_with_the_same_bits(
    forks: Any, fits: ModuleType, pack: Path, tmp_path: Path
) -> None:
    """Ten kills at random moments, ten amid saving: weights, averages, optimiser and figures are those of one run."""
    recipe, draw = fits.tiny_recipe(epochs=EPOCHS, keep_best=2), random.Random(5)
    alone = fits.write_request(tmp_path / "alone.json", tmp_path / "alone", pack, recipe)
    whole = forks.start(alone)
    run_dir = tmp_path / "broken"
    request, drafts = fits.write_request(tmp_path / "broken.json", run_dir, pack, recipe), 0
    assert forks.wait(whole) == [0]
    epoch_s = json.loads((tmp_path / "alone" / "train.json").read_text())["final"]["seconds"] / EPOCHS
    for kill in range(KILLS):
        pid = forks.start(request)
        fits.wait_until(lambda kill=kill: len(fits.events(run_dir, "start")) > kill)
        fits.wait_until(lambda least=kill * 4 // 5: epochs_done(fits, run_dir) >= least)
        if kill % 2:
            time.sleep(draw.uniform(0, epoch_s))
        else:
            fits.wait_until(lambda pid=pid: has_draft(run_dir, pid))
            time.sleep(draw.choice([0, 0, 0.001, 0.003]))
        os.kill(pid, signal.SIGKILL)
        assert forks.wait(pid) == [-signal.SIGKILL], "the run ended before it was killed"
        drafts += has_draft(run_dir, pid)
    assert drafts >= 3, "too few kills amid saving"
    assert forks.wait(forks.start(request)) == [0]
    assert not list((run_dir / "checkpoint").glob(".*"))
    assert_same(fits, run_dir, tmp_path / "alone")


def test_a_run_that_is_stopped_and_orphaned_ends_with_the_same_bits(
    forks: Any, fits: ModuleType, pack: Path, tmp_path: Path
) -> None:
    """SIGTERM, the parent's death and a checkpoint that was cut off cost nothing but time."""
    recipe, run_dir = fits.tiny_recipe(epochs=EPOCHS), tmp_path / "broken"
    alone = forks.start(fits.write_request(tmp_path / "alone.json", tmp_path / "alone", pack, recipe))
    request = fits.write_request(tmp_path / "broken.json", run_dir, pack, recipe)
    stopped = forks.start(request)
    fits.wait_until(lambda: len(fits.events(run_dir, "epoch")) > 2)
    os.kill(stopped, signal.SIGTERM)
    assert forks.wait(stopped) == [143]
    assert not (run_dir / "train.json").exists()
    step = last_step(run_dir)

    parent = fits.Forks()
    orphan = parent.start(request)
    fits.wait_until(lambda: fits.events(run_dir, "epoch")[-1]["step"] > step)
    parent.kill()
    fits.wait_until(lambda: has_ended(orphan))
    assert last_step(run_dir) > step

    index = json.loads((run_dir / "checkpoint" / "index.json").read_text())
    weights = run_dir / "checkpoint" / index["last"] / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    assert forks.wait(forks.start(request)) == [0]
    assert forks.wait(alone) == [0]
    assert_same(fits, run_dir, tmp_path / "alone")


def last_step(run_dir: Path) -> int:
    """The step that the last checkpoint was made after."""
    return int(json.loads((run_dir / "checkpoint" / "index.json").read_text())["last"].rpartition("-")[2])


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or only waits for somebody to take note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
