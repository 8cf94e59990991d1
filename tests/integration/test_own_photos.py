"""A person's own photos as a network sees them: turned as its training turned such, and answered upright."""

import hashlib
import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps

import flows.artifacts
import flows.export
import flows.predict
from models.frames import PackSpec
from models.recipes import crops_thumbnail_narrow
from storage import garbage, manifest
from storage.layout import Layout
from storage.records import PackRef
from tasks import caching, train
from tasks.errors import ConfigError
from tasks.model_export import NOT_EVALUATED, ExportedModel, export_run
from tasks.pack import frames, pack
from tasks.predict import Predicted, Reader, file_of, listed, own_orientation, rotate_of
from tasks.rotate import RotateMode, plan

WIDE, SQUARE = PackSpec(48, 72), PackSpec(64, 64)
SHOW_MODEL = flows.artifacts.show_model  # before a fixture stands in for it
TALL_PX = (96, 144)  # width, height
MODES: tuple[RotateMode, ...] = ("landscape", "upright", "none")


def picture(path: Path, seed: int, size: tuple[int, int] = TALL_PX, orientation: int = 1) -> Image.Image:
    """A grey photo stored at ``path`` under an EXIF orientation, with one white block; as a person sees it."""
    pixels = np.full((size[1], size[0], 3), 60 + seed, np.uint8)
    pixels[size[1] // 8 : size[1] // 4, size[0] // 8 : size[0] // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as stored:
        return ImageOps.exif_transpose(stored).convert("RGB")


def white_box(shown: np.ndarray) -> list[float]:
    """Where the white block lies: left, right, top, bottom as fractions."""
    rows, columns = np.nonzero(shown[..., 0] > 160)
    height, width = shown.shape[:2]
    return [columns.min() / width, (columns.max() + 1) / width, rows.min() / height, (rows.max() + 1) / height]


def reader_of(folder: Path, spec: PackSpec, rotate: RotateMode | None) -> Reader:
    """Of all photos in ``folder``."""
    place, files = listed(folder)
    return Reader(place, files, spec, rotate)


@pytest.mark.parametrize("spec", [WIDE, SQUARE], ids=["wide", "square"])
@pytest.mark.parametrize("mode", MODES)
def test_a_photo_is_shown_to_the_network_as_the_dataset_showed_its_like(
    tmp_path: Path, mode: RotateMode, spec: PackSpec
) -> None:
    """In frames of any shape, whatever the EXIF orientation: what packs the dataset gives the very same frame."""
    for orientation in range(1, 9):
        picture(tmp_path / f"tall-{orientation}.png", orientation, orientation=orientation)
        picture(tmp_path / f"wide-{orientation}.png", orientation, TALL_PX[::-1], orientation)
    reader = reader_of(tmp_path, spec, mode)
    for name in sorted(reader.paths):
        data, orientation = (tmp_path / name).read_bytes(), int(name[5])
        size = TALL_PX if name.startswith("tall") else TALL_PX[::-1]
        expected = plan(*size, orientation, mode, hashlib.sha256(data).hexdigest()).op
        assert np.array_equal(reader({"photo_id": name})[0], frames(data, expected, spec)[0]), name


def test_portraits_fall_to_both_sides_by_what_they_are(tmp_path: Path) -> None:
    """As a dataset of landscapes has them, so that gravity says nothing; another name turns no photo otherwise."""
    for seed in range(16):
        picture(tmp_path / f"{seed}.png", seed)
    reader = reader_of(tmp_path, SQUARE, "landscape")
    turns = {name: reader.opened(name)[2] for name in reader.paths}
    assert set(turns.values()) == {6, 8}
    for seed in range(16):
        (tmp_path / f"{seed}.png").rename(tmp_path / f"other-{seed}.png")
    reader = reader_of(tmp_path, SQUARE, "landscape")
    assert {f"other-{name}": turn for name, turn in turns.items()} == {
        name: reader.opened(name)[2] for name in reader.paths
    }


@pytest.mark.parametrize("mode", [*MODES, None])
def test_answers_are_about_the_photo_as_a_person_sees_it(tmp_path: Path, mode: RotateMode | None) -> None:
    """A rectangle in the network's frame comes back to where its content lies, and the picture is upright."""
    seen = {f"{n}.png": picture(tmp_path / f"{n}.png", n, orientation=n) for n in range(1, 9)}
    reader = reader_of(tmp_path, WIDE, mode)
    boxes = [white_box(reader({"photo_id": name})[0]) for name in seen]
    edges = dict(zip(("pred_x1", "pred_x2", "pred_y1", "pred_y2"), zip(*boxes, strict=True), strict=True))
    rows = own_orientation(pa.table({"photo_id": list(seen), **edges}), reader.turns).to_pylist()
    for name, row in zip(seen, rows, strict=True):
        found = [row[f"pred_{edge}"] for edge in ("x1", "x2", "y1", "y2")]
        assert np.allclose(found, white_box(np.asarray(seen[name])), atol=0.03), name
        assert np.abs(np.asarray(reader.small(name), int) - np.asarray(seen[name], int)).max() <= 2, name


def test_a_run_keeps_how_its_photos_were_turned(
    own_root: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From the dataset's rule by the pack's card into the run's folder; a run without that is told of in the log."""
    selection = manifest.write_rows(own_root, "selection", [])
    packs: dict[str, PackRef] = {mode: pack.fn(selection, 24, 36, rotate=mode) for mode in MODES}
    monkeypatch.setattr(train, "follower", lambda *given: lambda event: None)
    monkeypatch.setattr(train, "run_fit", lambda *given: None)
    monkeypatch.setattr(train, "trained", lambda where, run_dir: run_dir.name)
    for mode, ref in packs.items():
        assert rotate_of(own_root, train.train.fn(ref, {"name": "tiny"}, 0)) == mode
    assert "does not tell" not in caplog.text
    for name, card in (("old", None), ("cut", "{"), ("odd", '{"rotate": "sideways"}'), ("before", '{"version": 2}')):
        own_root.run(name).mkdir()
        if card is not None:
            (own_root.run(name) / "pack.json").write_text(card)
        with caplog.at_level(logging.WARNING):
            assert rotate_of(own_root, name) is None
        assert f"run {name} does not tell how its photos were turned" in caplog.text


class Noted:
    """Stands for a task; keeps what it was given."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []

    def submit(self, *given: Any) -> None:
        """Begin nothing."""
        self.inputs.append(given)


@pytest.fixture
def run_dir(own_root: Layout, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that ended and was not evaluated; flows without Prefect."""
    run_dir = own_root.run("a-run")
    best = run_dir / "checkpoint" / "best"
    best.mkdir(parents=True)
    (best / "weights.safetensors").write_bytes(b"weights")
    (run_dir / "checkpoint" / "index.json").write_text(json.dumps({"best": "best"}))
    (run_dir / "train.json").write_text(json.dumps({"recipe": crops_thumbnail_narrow().as_dict()}))
    ref = manifest.file_ref(own_root, run_dir / "train.json")
    results = {
        "predict": Predicted(digest="d", photos=1, unreadable=0, table=ref, page=ref),
        "export": ExportedModel(run_id="a-run", files=[]),
    }
    for module in (flows.predict, flows.export):
        monkeypatch.setattr(module, "one", lambda label, future: results[label])
        monkeypatch.setattr(module, "only_one", lambda name: nullcontext())
        monkeypatch.setattr(module.artifacts, "show_prediction", lambda *given: None)
        monkeypatch.setattr(module.artifacts, "show_model", lambda *given: None)
    return run_dir


def test_answers_and_exports_are_kept_by_all_that_they_depend_on(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation comes, changes; how photos were turned becomes known; a model card is written: each time another
    cache key. Nothing changes: the same."""
    picture(tmp_path / "a.png", 1)
    answering, exporting = Noted(), Noted()
    monkeypatch.setattr(flows.predict, "predict", answering)
    monkeypatch.setattr(flows.export, "export_run", exporting)
    for name, text in ((None, ""), ("evaluation.json", "{}"), ("evaluation.json", "{ }"), ("README.md", "card"),
                       ("pack.json", '{"rotate": "none"}')):  # fmt: skip
        if name is not None:
            (run_dir / name).write_text(text)
        flows.predict.predict_photos.fn(str(tmp_path / "a.png"), "a-run")
        flows.export.export_model.fn("a-run")
    answered, exported = (
        [caching.digest(stage, dict(enumerate_names(given)), code="the same") for given in noted.inputs]
        for stage, noted in (("predict", answering), ("export-model", exporting))
    )
    first, second, third, fourth = answered[0], answered[1], answered[2], answered[4]
    assert len({first, second, third, fourth}) == 4
    assert answered[3] == third
    assert len(set(exported[:4])) == 4
    assert exported[4] == exported[3]


def enumerate_names(given: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Inputs by their place."""
    return [(str(place), value) for place, value in enumerate(given)]


def test_the_export_of_a_run_that_was_not_evaluated_says_so(
    own_root: Layout, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In export.json, in place of a card that an earlier training left, and in the UI; that of another does not."""

    def run_fit(job: str, folder: Path, *given: Any) -> None:
        (folder / "export.json").write_text('{"left_out": "ONNX.", "decisions": {}}')

    shown: list[str] = []
    monkeypatch.setattr("tasks.model_export.run_fit", run_fit)
    monkeypatch.setattr(
        flows.artifacts, "create_table_artifact", lambda *rows, key, description: shown.append(description)
    )
    for name in ("README.md", "evaluation.json"):
        (run_dir / name).write_text("{}")
    evaluation, card = (file_of(own_root, "a-run", name) for name in ("evaluation.json", "README.md"))
    weights = manifest.file_ref(own_root, run_dir / "checkpoint" / "best" / "weights.safetensors")
    said = []
    for judged in (None, evaluation):
        SHOW_MODEL(export_run.fn("a-run", weights, {}, "", judged, card))
        about = json.loads((run_dir / "model" / "export.json").read_text())
        said.append((about.pop("is_evaluated"), about, (run_dir / "model" / "README.md").read_text()))
    kept = {"left_out": "ONNX.", "decisions": {}}
    assert said == [(False, kept, f"# Model of run a-run\n\n{NOT_EVALUATED}\n"), (True, kept, "{}")]
    assert shown == [f"Model of run a-run. {NOT_EVALUATED} ONNX.", "Model of run a-run. ONNX."]


def test_the_newest_run_is_one_that_was_evaluated(own_root: Layout, run_dir: Path) -> None:
    """A training that ended, but was not judged, is asked only by its name."""
    with pytest.raises(ConfigError, match="is finished and evaluated"):
        flows.predict.newest_run()
    for name, ended_s in (("b-run", 1000), ("c-run", 2000)):
        folder = own_root.run(name)
        (folder / "checkpoint").mkdir(parents=True)
        for file in ("train.json", "checkpoint/index.json"):
            (folder / file).write_text("{}")
            os.utime(folder / file, (ended_s, ended_s))
        (folder / "evaluation.json").write_text("{}")
    os.utime(own_root.run("c-run") / "evaluation.json", (500, 500))
    used = [manifest.file_ref(own_root, own_root.run("b-run") / name) for name in ("train.json", "evaluation.json")]
    garbage.mark_used(own_root, used)
    assert flows.predict.newest_run() == "c-run", "of those, the last that was trained, whenever it was judged or used"
    assert file_of(own_root, "a-run", "evaluation.json") is None


def test_no_plain_file_is_read(tmp_path: Path) -> None:
    """A pipe and a device end in one sentence, a link to either in no digest; none is waited for."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is no plain file: name a photo"):
            listed(place)
    with pytest.raises(ConfigError, match="nothing can be found at 'photos/a"):
        listed(Path("photos/a\0b"))
    folder = tmp_path / "folder"
    folder.mkdir()
    picture(folder / "c.png", 1)
    for name, target in (("a.jpg", pipe), ("b.jpg", Path("/dev/zero"))):
        (folder / name).symlink_to(target)
    found = {file.photo_id: file.sha256 for file in listed(folder)[1]}
    assert found == {"a.jpg": "", "b.jpg": "", "c.png": hashlib.sha256((folder / "c.png").read_bytes()).hexdigest()}
    reader = reader_of(folder, WIDE, "landscape")
    assert all(not reader({"photo_id": name})[0].any() for name in ("a.jpg", "b.jpg"))
    assert set(reader.reasons) == {"a.jpg", "b.jpg"}
