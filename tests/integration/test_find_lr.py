"""The job ``find_lr`` of ``python -m models.fit``: a rate for a run, from a pack, before the run begins."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from models import fit
from models.errors import STOPPED_EXIT_CODE


@pytest.fixture
def request_file(fits: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A request to look for a rate; signals and the parent are left alone."""
    monkeypatch.setattr(fit.StopRequest, "install", lambda self: None)
    pack = fits.write_pack(tmp_path / "pack", {"train": 48, "val": 12, "test": 12})
    recipe = fits.tiny_recipe(epochs=2)
    threads = torch.get_num_threads()
    yield fits.write_request(tmp_path / "run.json", tmp_path / "run", pack, recipe, job="find_lr")
    torch.set_num_threads(threads)


def test_a_search_leaves_the_sweep_and_nothing_else(request_file: Path, tmp_path: Path) -> None:
    """lr_finder.json holds rates, losses and suggestions, beside what made them; a run may then begin there."""
    assert fit.main([str(request_file)]) == 0
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"lr_finder.json", ".lock"}
    found = json.loads((tmp_path / "run" / "lr_finder.json").read_text())
    assert len(found["lrs"]) == len(found["losses"]) > 20
    assert found["suggestions"].keys() == {"minimum", "steepest", "valley"}
    assert all(1e-7 <= lr <= 10 for lr in found["suggestions"].values())
    assert found["recipe"]["name"] == "tiny"


def test_a_search_can_be_stopped(request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It then leaves nothing."""
    monkeypatch.setattr(fit.StopRequest, "__call__", lambda self: True)
    assert fit.main([str(request_file)]) == STOPPED_EXIT_CODE
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]
