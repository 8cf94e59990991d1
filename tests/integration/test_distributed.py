"""Several processes that train one network: what one would, written once, and all of them end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.categories.spec import CategorySpec
from models.checkpoint import best_weights, read_index


@pytest.fixture(scope="module")
def pack(fits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three colours; not a multiple of the batch."""
    return fits.write_pack(tmp_path_factory.mktemp("packs") / "pack", {"train": 45, "val": 8, "test": 4})


def test_two_processes_train_what_one_does(forks: Any, fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """Without batch normalisation, weights and figures agree within 1e-6; one of them writes."""
    plain = CategorySpec("plain", input_px=16)
    recipe = fits.tiny_recipe(system=plain, epochs=3, accumulate=2, batch_size=12)
    one = fits.write_request(tmp_path / "one.json", tmp_path / "one", pack, recipe)
    two = fits.write_request(tmp_path / "two.json", tmp_path / "two", pack, recipe)
    started = [forks.start(one), *forks.start_two(two)]
    assert forks.wait(*started) == [0, 0, 0]
    ours, theirs = (load_file(best_weights(tmp_path / name)) for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert max(np.abs(ours[name] - theirs[name]).max() for name in theirs) < 1e-6
    assert len(fits.events(tmp_path / "two", "start")) == 1
    lines = zip(*(fits.events(tmp_path / name, "epoch") for name in ("two", "one")), strict=True)
    assert max(abs(two[name] - one[name]) for two, one in lines for name in ("loss", "val_loss")) < 1e-6
    assert json.loads((tmp_path / "two" / "train.json").read_text())["processes"] == 2


@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)], ids=str)
def test_a_stop_of_one_stops_all_at_the_same_step(
    forks: Any, fits: ModuleType, pack: Path, tmp_path: Path, told: tuple[int, ...]
) -> None:
    """Whichever process is told, all save once, end with 143, and go on together to the same bits."""
    recipe = fits.tiny_recipe(epochs=8)
    stopped = fits.write_request(tmp_path / "stopped.json", tmp_path / "stopped", pack, recipe)
    pids = forks.start_two(stopped)
    fits.wait_until(lambda: len(fits.events(tmp_path / "stopped", "epoch")) > 1)
    for rank in told:
        os.kill(pids[rank], signal.SIGTERM)
    assert forks.wait(*pids) == [143, 143]
    assert len(fits.events(tmp_path / "stopped", "epoch")) < 8
    assert not (tmp_path / "stopped" / "train.json").exists()
    if told != (1,):
        return
    assert forks.wait(*forks.start_two(stopped)) == [0, 0]
    alone = fits.write_request(tmp_path / "alone.json", tmp_path / "alone", pack, recipe)
    assert forks.wait(*forks.start_two(alone)) == [0, 0]
    ours, theirs = (load_file(best_weights(tmp_path / name)) for name in ("stopped", "alone"))
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert max(np.abs(ours[name]).max() for name in ours if "running" in name) < 10, "statistics are means, not sums"


@pytest.mark.parametrize("dead", [0, 1])
def test_the_death_of_one_ends_the_other(forks: Any, fits: ModuleType, pack: Path, tmp_path: Path, dead: int) -> None:
    """A process whose partner was killed ends with an error, and soon; what was saved stays."""
    recipe = fits.tiny_recipe(epochs=1000)
    pids = forks.start_two(fits.write_request(tmp_path / "run.json", tmp_path / "run", pack, recipe))
    fits.wait_until(lambda: len(fits.events(tmp_path / "run", "epoch")) > 1)
    os.kill(pids[dead], signal.SIGKILL)
    killed_s = time.monotonic()
    assert forks.wait(pids[dead], pids[1 - dead]) == [-signal.SIGKILL, 1]
    assert time.monotonic() - killed_s < 30
    assert read_index(tmp_path / "run" / "checkpoint")


def test_torchrun_trains_and_stops(fits: ModuleType, pack: Path, tmp_path: Path) -> None:
    """The documented command trains; told to stop, it leaves a checkpoint and no process."""
    recipe = fits.tiny_recipe(epochs=1000)
    request = fits.write_request(tmp_path / "run.json", tmp_path / "run", pack, recipe)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Told to stop while it looks after its processes, it waits for a lock of its own for ever: so it looks but seldom.
    command = [*launcher, "--monitor-interval=2", "-m", "models.fit", str(request)]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        fits.wait_until(lambda: len(fits.events(tmp_path / "run", "epoch")) > 1)
        process.terminate()
        assert process.wait(fits.WAIT_S) != 0
    assert not running(str(request))
    assert len(fits.events(tmp_path / "run", "start")) == 1
    done = len(fits.events(tmp_path / "run", "epoch"))
    assert read_index(tmp_path / "run" / "checkpoint")[-1].name.startswith(f"epoch-{done:04d}-")


def running(argument: str) -> list[str]:
    """The processes that have ``argument`` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found += [entry.name] if argument in (entry / "cmdline").read_text().split("\0") else []
            except OSError:
                continue
    return found
