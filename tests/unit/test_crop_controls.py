"""The bench of crop controls takes a run that is there only for what it was."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from models.recipes import resolve

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def controls(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; what it puts on the path of imports is taken off again."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = spec_from_file_location("crop_controls_of_bench", BENCH / "crop_controls.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def start(folder: Path, weights: bytes) -> Path:
    """A run with these weights."""
    folder.mkdir()
    (folder / "best").write_bytes(weights)
    return folder


def test_a_run_is_named_by_all_that_decides_it(controls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe, pack, seed, start (or none), order of starts or code is another run; else it is the same."""
    monkeypatch.setattr(controls, "best_weights", lambda run: run / "best")
    packs = [tmp_path / name for name in ("pack", "other")]
    for pack in packs:
        pack.mkdir()
        (pack / "pack.json").write_text(pack.name)
    one, two = start(tmp_path / "one", b"1"), start(tmp_path / "two", b"2")
    joint, thumbnail = resolve("crops_joint_narrow"), resolve("crops_thumbnail_narrow")
    asked = [
        (joint, packs[0], 0, [one, two]), (thumbnail, packs[0], 0, [one, two]), (joint, packs[1], 0, [one, two]),
        (joint, packs[0], 1, [one, two]), (joint, packs[0], 0, []), (joint, packs[0], 0, [two, one]),
    ]  # fmt: skip
    names = [controls.run_name("lens-1", *each) for each in asked]
    assert len(set(names)) == len(asked)
    assert controls.run_name("lens-1", *asked[0]) == names[0]
    (one / "best").write_bytes(b"1 again")
    assert controls.run_name("lens-1", *asked[0]) != names[0]
    (one / "best").write_bytes(b"1")
    monkeypatch.setattr(controls, "code_digest", lambda package: "edited")
    assert controls.run_name("lens-1", *asked[0]) != names[0]


def test_an_edit_of_the_code_counts_and_a_comment_does_not(controls: Any, tmp_path: Path) -> None:
    """Modules of subpackages count too."""
    (tmp_path / "deep").mkdir()
    module = tmp_path / "deep" / "law.py"
    module.write_text("FACTOR = 1\n")
    before = controls.code_digest(tmp_path)
    module.write_text("FACTOR = 1  # by hand\n")
    assert controls.code_digest(tmp_path) == before
    module.write_text("FACTOR = 2\n")
    assert controls.code_digest(tmp_path) != before


@pytest.mark.parametrize(
    ("name", "low", "beats", "holds"),
    [
        ("crop_accuracy", 0.45, False, True),
        ("crop_accuracy", 0.45, True, False),
        ("crop_accuracy", 0.51, False, False),
        ("crop_accuracy", 0.39, False, False),
        ("rectangle_iou_crops", 0.39, False, True),
        ("rectangle_iou_crops", 0.51, True, False),
    ],
)
def test_a_control_holds_while_its_interval_holds_the_baseline(
    controls: Any, name: str, low: float, beats: bool, holds: bool
) -> None:
    """Below a coin has been learnt, too, but not below the best constant; a win is what the control must not have."""
    arm = {"arm": "a", "value": low + 0.05, "low": low, "high": low + 0.1, "seed_std": None, "beats_baseline": beats}
    figure = {"name": name, "label": "F", "better": "higher", "baseline": 0.5, "arms": [arm]}
    assert [check.holds for check in controls.negative({"figures": [figure]}, "lens 0")] == [holds]
