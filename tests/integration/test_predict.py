"""A trained model on a person's own photos, and its export: real training processes, real files."""

import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models import recipes
from models.crops.spec import PatchSpec, ScaleLaw, ThumbnailSpec, TrunkSpec
from models.frames import PackSpec
from models.specs import Recipe
from storage import manifest
from storage.layout import Layout
from storage.records import FileRef
from tasks import caching
from tasks.errors import ConfigError
from tasks.fitting import run_fit
from tasks.model_export import export_run, onnx_versions
from tasks.pack import Part, write_card
from tasks.pages import answers
from tasks.predict import PhotoFile, Predicted, Reader, listed, predict
from tasks.train import best_weights

FRAME, DETAIL = (24, 36), (96, 144)


def tiny() -> Recipe:
    """The joint recipe, small enough for a second of training."""
    base = recipes.crops_joint_narrow()
    trunk = TrunkSpec((1, 1), (8, 16), "3x3", embedding=8)
    halves = {
        "thumbnail": ThumbnailSpec(trunk, 12, 18, ScaleLaw(18, 18)),
        "patches": PatchSpec(trunk, 16, ScaleLaw(64, 72), jitter_px=2),
        "hidden": (16,),
    }
    few = replace(base.system.evaluation, bootstrap_replicates=100)
    return replace(
        base, name="tiny", system=replace(base.system, **halves, evaluation=few), pack=PackSpec(*FRAME, *DETAIL),
        batch_size=16, epochs=1, frozen=(),
    )  # fmt: skip


def picture(seed: int, width: int = 144, height: int = 96) -> Image.Image:
    """Noise that is darker towards its corners."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = rng.uniform(150, 250, 3) * (1 - 0.4 * (x**2 + y**2))[..., None] + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def settings_of_module() -> None:
    """On one thread of the CPU, for all tests of this file."""


def both_frames(row: dict[str, str]) -> list[np.ndarray]:
    """A picture that the photo's name decides, in both sizes."""
    made = picture(zlib.crc32(row["photo_id"].encode()) % 1000)
    return [np.asarray(made.resize(size[::-1])) for size in (FRAME, DETAIL)]


@pytest.fixture(autouse=True)
def on_one_thread(environment: Callable[..., None]) -> None:
    """On one thread of the CPU."""
    environment(DARKROOM_DEVICE="cpu", DARKROOM_THREADS="1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, FileRef, FileRef]:
    """A finished run below the data root: its id, its best weights and its evaluation."""
    from storage.layout import layout

    where, recipe = layout(), tiny()
    pack_dir = tmp_path_factory.mktemp("pack")
    parts = []
    for split, count in (("train", 32), ("val", 8), ("test", 8)):
        names = [f"{split}-{number}" for number in range(count)]
        rows = pa.table({"source": ["made"] * count, "photo_id": names, "owner_id": names})
        part = Part(pack_dir, split, rows, recipe.pack)
        part.write_rows()
        part.fill(both_frames)
        parts.append(part)
    write_card(pack_dir, recipe.pack, parts)
    run_dir = where.run("tiny-run")
    run_dir.mkdir(parents=True)
    request = {"run_id": "tiny-run", "pack_dir": str(pack_dir), "recipe": recipe.as_dict(), "seed": 0}
    for job in ("train", "evaluate"):
        run_fit(job, run_dir, request, lambda event: None)
    files = best_weights(run_dir / "checkpoint"), run_dir / "evaluation.json"
    return "tiny-run", *(manifest.file_ref(where, file) for file in files)


def photos_of(folder: Path) -> Path:
    """A landscape, a portrait, one that its EXIF block turns, a PNG with an odd name, a broken file, a text."""
    folder.mkdir()
    picture(1).save(folder / "a.jpg", quality=90)
    picture(2, 96, 144).save(folder / "b portrait.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(3, 96, 144).save(folder / "c.jpg", quality=90, exif=exif)
    (folder / "d").mkdir()
    picture(4).save(folder / "d" / 'quote " & ümlaut.png')
    stream = io.BytesIO()
    picture(5).save(stream, "JPEG")
    (folder / "e.jpg").write_bytes(stream.getvalue()[:700])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def answered(trained: tuple[str, FileRef, FileRef], tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    """What the run says of ``photos_of``."""
    folder, files = listed(photos_of(tmp_path_factory.mktemp("own") / "photos"))
    return predict.fn(str(folder), files, *trained, "landscape", "mine")


def test_every_photo_is_a_row_and_a_broken_one_has_its_reason(root: Layout, answered: Predicted) -> None:
    """Rows in the order of names, answers for all that could be read, nulls and a reason for the rest."""
    rows = pq.read_table(root.root / answered.table.path).to_pylist()
    assert [row["photo_id"] for row in rows] == ["a.jpg", "b portrait.jpg", "c.jpg", 'd/quote " & ümlaut.png', "e.jpg"]
    assert [row["reason"] for row in rows[:4]] == [None] * 4
    assert all(0 < row["crop_probability"] < 1 and len(row["location_probabilities"]) == 256 for row in rows[:4])
    assert rows[4]["reason"]
    assert rows[4]["crop_probability"] is None
    assert (answered.photos, answered.unreadable) == (5, 1)


def test_portraits_are_turned_for_the_network_and_back_for_the_person(root: Layout, answered: Predicted) -> None:
    """A portrait photo is shown to the network on its side; one that its EXIF block lays down is not."""
    turns = [row["net_turn"] for row in pq.read_table(root.root / answered.table.path).to_pylist()]
    assert turns[1] in (6, 8)
    assert turns[:1] + turns[2:] == [1, 1, 1, 1]
    assert "answers are turned back" in (root.prediction(answered.digest) / "report.html").read_text()


def test_each_answer_has_a_picture_and_the_page_needs_nothing_else(root: Layout, answered: Predicted) -> None:
    """Four pictures that can be opened; a page without scripts or outside addresses, names escaped."""
    folder = root.prediction(answered.digest)
    pictures = sorted((folder / "pictures").iterdir())
    assert len(pictures) == 4
    for path in pictures:
        with Image.open(path) as opened:
            assert opened.width > opened.height > 100
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/jpeg') == 4
    assert "&#34; &amp; ümlaut.png" in page
    assert "<script" not in page
    assert sorted(path.name for path in folder.iterdir()) == ["pictures", "predictions.parquet", "report.html"]


def test_the_same_photo_gets_the_same_answer_in_any_company(
    root: Layout, trained: tuple[str, FileRef, FileRef], answered: Predicted, tmp_path: Path
) -> None:
    """An answer depends on the photo alone, not on its name, its folder or the others."""
    picture(1).save(tmp_path / "z.jpg", quality=90)
    folder, files = listed(tmp_path / "z.jpg")
    alone = pq.read_table(
        root.root / predict.fn(str(folder), files, *trained, "landscape", "one").table.path
    ).to_pylist()[0]
    before = pq.read_table(root.root / answered.table.path).to_pylist()[0]
    numbers = {name: value for name, value in before.items() if isinstance(value, float)}
    assert numbers == pytest.approx({name: alone[name] for name in numbers}, abs=1e-5)
    assert before["pred_cells"] == alone["pred_cells"]


def test_a_photo_that_changes_while_it_is_looked_at_keeps_the_other_answers(
    root: Layout, trained: tuple[str, FileRef, FileRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is another since it was listed, one vanishes before it is drawn, the label of one cannot be drawn: each has
    its reason and no answer, and the last one its answer, with the digest that it was listed with."""
    for number, name in enumerate(("changed", "gone", "odd", "whole")):
        picture(number).save(tmp_path / f"{name}.jpg", quality=90)
    folder, files = listed(tmp_path)
    picture(9).save(tmp_path / "changed.jpg", quality=90)

    def drawn(photo: Image.Image, row: dict[str, Any]) -> Image.Image:
        if row["photo_id"] == "odd.jpg":
            raise ValueError("no such letter")
        return draw_crop(photo, row)

    draw_crop = answers.draw_crop
    monkeypatch.setitem(answers.DRAWN, "crops", drawn)
    monkeypatch.setattr("tasks.predict.Reader.small", small_after(tmp_path / "gone.jpg"))
    found = predict.fn(str(folder), files, *trained, "landscape", "restless")
    rows = pq.read_table(root.root / found.table.path).to_pylist()
    reasons = {row["photo_id"]: row["reason"] for row in rows}
    assert "changed since it was listed" in reasons["changed.jpg"]
    assert "No such file" in reasons["gone.jpg"]
    assert "no such letter" in reasons["odd.jpg"]
    assert reasons["whole.jpg"] is None
    assert [row["crop_probability"] is None for row in rows] == [True, True, True, False]
    assert [row["sha256"] for row in rows] == [file.sha256 for file in files]
    assert rows[3]["crop_threshold"] == pytest.approx(expected_threshold(root.run(trained[0])))
    assert (found.photos, found.unreadable) == (4, 3)


def test_a_run_that_was_not_evaluated_is_said_to_be_one(
    root: Layout, trained: tuple[str, FileRef, FileRef], answered: Predicted, tmp_path: Path
) -> None:
    """One half is its threshold, its page says so, and it does not take the place of later answers."""
    run_id, weights, evaluation = trained
    picture(1).save(tmp_path / "a.jpg", quality=90)
    folder, files = listed(tmp_path)
    judged = root.root / evaluation.path
    kept = judged.rename(judged.with_name("kept.json"))
    try:
        found = predict.fn(str(folder), files, run_id, weights, None, None, "early")
    finally:
        kept.rename(judged)
    (row,) = pq.read_table(root.root / found.table.path).to_pylist()
    assert row["crop_threshold"] == 0.5
    assert row["called_crop"] == (row["crop_probability"] >= 0.5)
    page = (root.root / found.page.path).read_text()
    assert "This run was not evaluated" in page
    assert "does not tell how the photos were turned" in page
    assert "was not evaluated" not in (root.root / answered.page.path).read_text()


def small_after(doomed: Path) -> Callable[[Reader, str], Image.Image]:
    """``Reader.small``, before which a file vanishes."""
    small = Reader.small

    def after(reader: Reader, photo: str) -> Image.Image:
        doomed.unlink(missing_ok=True)
        return small(reader, photo)

    return after


def expected_threshold(run_dir: Path) -> float:
    """The least probability that its evaluation calls a crop."""
    decisions = json.loads((run_dir / "evaluation.json").read_text())["decisions"]
    return float(1 / (1 + np.exp(-decisions["threshold"] / decisions["temperature_crop"])))


def test_a_caption_never_contradicts_itself() -> None:
    """The probability stands beside the one that is enough, and the two are told apart."""
    row = {"called_crop": True, "crop_probability": 0.3, "crop_threshold": 0.27, "pred_size_factor": 0.7}
    said = "cropped: 30 % probability of a crop, 27 % is enough, size factor 0.70"
    assert answers.crop_words(row) == said
    row |= {"called_crop": False, "crop_probability": 0.2694}
    assert answers.crop_words(row) == "whole: 26.9 % probability of a crop, 27.0 % would be enough"
    row |= {"called_crop": True, "crop_probability": 0.27}
    assert answers.crop_words(row).startswith("cropped: 27 % probability of a crop, 27 % is enough")


@pytest.mark.parametrize("label", ["a\nb", "a\r\n\tb", " a\u2028b ", "a\x0bb"])
def test_a_label_of_several_lines_is_drawn_on_one(label: str) -> None:
    """Strangers' words may hold any white space."""
    row = {"top_labels": [label], "top_probabilities": [0.5]}
    one = answers.draw_category(picture(1), {**row, "top_labels": ["a b"]})
    assert np.array_equal(np.asarray(answers.draw_category(picture(1), row)), np.asarray(one))


def test_no_photos_and_no_run_are_one_sentence(tmp_path: Path) -> None:
    """A folder without pictures, a place that is not there, a run that never was."""
    (tmp_path / "notes.txt").write_text("no photo")
    for place, words in ((tmp_path, "holds no photos"), (tmp_path / "gone", "nothing can be found")):
        with pytest.raises(ConfigError, match=words):
            listed(place)
    none = FileRef(path="none", sha256="0" * 64, size_bytes=0)
    with pytest.raises(ConfigError, match="there is no finished run 'never'"):
        predict.fn(str(tmp_path), [PhotoFile(path="a.jpg", sha256="")], "never", none, None, None, "title")


def test_another_onnx_is_another_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept export without model.onnx does not count once the packages are there; nor do other versions of them."""
    versions = {"onnx": "1.0", "onnxscript": "1.0"}

    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    def key() -> str:
        return caching.digest("export-model", {"run_id": "r", "onnx": onnx_versions()}, code="the same")

    monkeypatch.setattr(metadata, "version", version)
    assert onnx_versions() == "onnx 1.0, onnxscript 1.0, onnxruntime absent"
    keys = [key()]
    versions["onnxruntime"] = "1.0"
    keys.append(key())
    versions["onnx"] = "1.1"
    assert len({*keys, key()}) == 3
    assert "tasks.model_export" in caching.CODE["export-model"].modules


def test_an_exported_model_answers_as_the_network_does(root: Layout, trained: tuple[str, FileRef, FileRef]) -> None:
    """torch.export and ONNX within 1e-4, for another number of photos than they were traced with."""
    run_id, weights, evaluation = trained
    card = root.run(run_id) / "README.md"
    card.write_text("of the run")
    card_ref = manifest.file_ref(root, card)
    exported = export_run.fn(run_id, weights, tiny().as_dict(), onnx_versions(), evaluation, card_ref)
    assert (exported.left_out, exported.is_evaluated) == (None, True)
    folder = root.run(run_id) / "model"
    about = json.loads((folder / "export.json").read_text())
    assert about["decisions"] == json.loads((root.root / evaluation.path).read_text())["decisions"]
    assert about["is_evaluated"]
    assert (folder / "README.md").read_text() == "of the run"
    inputs = {name: torch.rand(3, *shape[1:]) for name, shape in about["inputs"].items()}
    module = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        found = dict(zip(about["outputs"], module(inputs), strict=True))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    fed = {
        each.name: next(v.numpy() for k, v in inputs.items() if each.name.endswith(k)) for each in session.get_inputs()
    }
    for (name, value), other in zip(found.items(), session.run(None, fed), strict=True):
        assert other.shape[0] == 3
        assert np.abs(value.numpy() - other).max() < 1e-4, name
    assert load_file(folder / "weights.safetensors").keys() == load_file(root.root / weights.path).keys()
    assert set(about["files"]) == {"model.pt2", "model.onnx"}
