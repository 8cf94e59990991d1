"""The training flow on a small published snapshot, under a real Prefect server, with the real training process."""

import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flows.train
from flows.exclusive import only_one
from flows.train import train_model
from models import recipes
from models.crops.spec import ScaleLaw, ThumbnailSpec, TrunkSpec
from models.frames import PackSpec
from models.specs import Freeze, OptimiserSpec, Recipe, ScheduleSpec
from storage import blobs, garbage, manifest
from storage.layout import Layout, layout, write_bytes
from storage.records import SPLITS, RunRef
from tasks.errors import ConfigError, SnapshotMissing, TooFewPhotos
from tasks.publish import publish_snapshot

pytestmark = pytest.mark.usefixtures("prefect_server")
TASKS = ("pack", "train", "evaluate", "report_run")
COUNTS = {"train": 40, "val": 10, "test": 12}
FRAME = (24, 36)
Ran = Counter[tuple[str, str]]


def tiny() -> Recipe:
    """The narrow recipe, made for frames of 24 x 36 and a second of training."""
    base = recipes.crops_thumbnail_narrow()
    half = ThumbnailSpec(TrunkSpec((1, 1), (8, 16), "3x3", embedding=16), 12, 18, ScaleLaw(18, 18, max_noise_std=0.01))
    few = replace(base.system.evaluation, bootstrap_replicates=100)
    system = replace(base.system, thumbnail=half, hidden=(32,), evaluation=few)
    return replace(base, name="tiny", system=system, pack=PackSpec(*FRAME), batch_size=16, epochs=2)


def jpeg(seed: int) -> bytes:
    """A small picture of noise, darker towards its corners."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:48j, -1:1:72j]
    pixels = rng.uniform(150, 250, 3) * (1 - 0.4 * (x**2 + y**2))[..., None] + rng.normal(0, 4, (48, 72, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def publish(root: Layout, name: str, counts: dict[str, int]) -> None:
    """Publish a dataset of so many photos by split, with one that was rejected."""
    splits = [split for split in SPLITS for _ in range(counts[split])]
    rows: list[dict[str, Any]] = [{"photo_id": "none", "verdict": False, "reason": "gone", "reason_stage": "download"}]
    for seed, split in enumerate(splits):
        sha256 = blobs.put(root, jpeg(seed), "JPEG")
        rows.append({
            "photo_id": f"{seed:03d}", "owner_id": f"o{seed}", "owner_name": f"Owner {seed}", "title": f"Photo {seed}",
            "sha256": sha256, "blob": sha256, "format": "JPEG", "net_op": 1, "width": 72, "height": 48, "long_px": 72,
            "short_px": 48, "exif_orientation": 1, "aspect_milli": 1500, "licence": "CC0", "split": split,
            "group_id": f"o{seed}", "verdict": True,
        })  # fmt: skip
    joined = manifest.write_rows(root, "publish", ({"source": "flickr", **row} for row in rows))
    write_bytes(root.root / "page.html", b"<html></html>")
    pages = {"report.html": manifest.file_ref(root, root.root / "page.html")}
    publish_snapshot(root, name, {"rotate": "upright"}, joined, pages)


@pytest.fixture(scope="module")
def snapshot() -> str:
    publish(layout(), "train-flow", COUNTS)
    return "train-flow"


@pytest.fixture(autouse=True)
def recipe(monkeypatch: pytest.MonkeyPatch, environment: Callable[..., None]) -> None:
    """The recipe ``tiny``, on one thread of the CPU."""
    environment(DARKROOM_DEVICE="cpu", DARKROOM_THREADS="1")
    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """How often each task ended in which state."""
    counted: Ran = Counter()
    for name in TASKS:
        task = getattr(flows.train, name)
        count: Callable[..., None] = lambda task, run, state, name=name: counted.update([(name, state.name)])  # noqa: E731
        monkeypatch.setattr(flows.train, name, task.with_options(on_completion=[count]))
    return counted


def runs(root: Layout) -> set[str]:
    folder = root.run("x").parent
    return {entry.name for entry in folder.iterdir()} if folder.exists() else set()


def weights(run: RunRef) -> Path:
    folder = Path(run.uri) / "checkpoint"
    best: str = json.loads((folder / "index.json").read_text())["best"]
    return folder / best / "weights.safetensors"


def test_a_run_has_figures_and_a_report_and_is_not_repeated(root: Layout, snapshot: str, ran: Ran) -> None:
    """Every figure stands beside its baseline and interval; the second call runs no body and gives the same."""
    run = train_model(snapshot, "tiny")
    assert set(ran) == {(name, "Completed") for name in TASKS}
    assert Path(run.uri) == root.run(run.run_id)
    assert len(run.figures) >= 3
    assert all(figure.low <= figure.value <= figure.high for figure in run.figures)
    page = (Path(run.uri) / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert run.run_id in page
    assert run.figures[0].label in page
    assert 'datasets: ["train-flow, version 1"]' in (Path(run.uri) / "README.md").read_text(encoding="utf-8")
    assert json.loads((Path(run.uri) / "train.json").read_text())["final"]["epochs"] == 2
    assert json.loads((Path(run.uri) / "pack.json").read_text())["rotate"] == "upright", "as the dataset's rules say"
    ran.clear()
    assert train_model(f"{snapshot}@1", "tiny") == run
    assert set(ran) == {(name, "Cached") for name in TASKS}


@pytest.mark.parametrize("harm", ["delete", "flip"])
def test_harmed_weights_are_trained_again(snapshot: str, ran: Ran, harm: str) -> None:
    """The training runs again from its beginning, ends with the very same weights and is judged; nothing is packed."""
    run = train_model(snapshot, "tiny")
    file = weights(run)
    before = file.read_bytes()
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    ran.clear()
    assert train_model(snapshot, "tiny") == run
    assert weights(run).read_bytes() == before
    assert {name for name, state in ran if state != "Cached"} == {"train", "evaluate"}
    events = [json.loads(line)["event"] for line in (Path(run.uri) / "metrics.jsonl").read_text().splitlines()]
    assert Counter(events)["end"] == 1, "what is told is the training that stands"


def test_what_never_learns_comes_from_a_file_of_weights(
    snapshot: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A recipe that freezes its trunk for good is trained from one that lies anywhere, even if garbage, young or old,
    was collected while the training waited for its turn.
    """
    collected: list[Path] = []

    @contextmanager
    def after_a_collection(name: str) -> Iterator[None]:
        heaps = garbage.find(layout(), time.time() + 3600)
        garbage.delete(heap for heap in heaps if heap.kind == "weights")
        collected.extend(path for heap in heaps if heap.kind == "weights" for path in heap.paths)
        with only_one(name):
            yield

    kept = replace(tiny(), name="kept", frozen=(Freeze("thumbnail."),))
    monkeypatch.setitem(recipes.RECIPES, "kept", lambda: kept)
    given = tmp_path / "given.safetensors"
    shutil.copy(weights(train_model(snapshot, "tiny")), given)
    monkeypatch.setattr(flows.train, "only_one", after_a_collection)
    run = train_model(snapshot, "kept", start_from=[str(given)])
    given.unlink()
    assert [path.name for path in collected] == ["weights.safetensors"]
    assert json.loads((Path(run.uri) / "train.json").read_text())["start_from"][0]["left_out"] == []


def test_a_deleted_report_is_written_again(snapshot: str, ran: Ran) -> None:
    """It costs the report alone."""
    run = train_model(snapshot, "tiny")
    (Path(run.uri) / "report.html").unlink()
    ran.clear()
    train_model(snapshot, "tiny")
    assert (Path(run.uri) / "report.html").exists()
    assert {name for name, state in ran if state != "Cached"} == {"report_run"}


@pytest.mark.parametrize(
    ("name", "recipe_name", "error", "words"),
    [
        ("train-flow", "tinny", ConfigError, "unknown recipe 'tinny'.*choose one of .*tiny"),
        ("nowhere", "tiny", SnapshotMissing, "the dataset 'nowhere' has no snapshot.*refresh it first"),
        ("train-flow@7", "tiny", SnapshotMissing, r"has no version '7'; it has \[1\]"),
        ("train-flow@latest", "tiny", SnapshotMissing, "has no version 'latest'"),
        (
            "train-flow",
            "categories_narrow",
            ConfigError,
            "has no labels, and the recipe 'categories_narrow' learns them",
        ),
        ("few", "tiny", TooFewPhotos, "version 1 of the dataset 'few' has 40 in train, 7 in val.*at least 8 in val"),
    ],
)
def test_the_impossible_is_refused_in_a_sentence(
    root: Layout, snapshot: str, ran: Ran, name: str, recipe_name: str, error: type[Exception], words: str
) -> None:
    """It names the thing and the remedy, before anything is packed, and leaves no run behind."""
    publish(root, "few", COUNTS | {"val": 7})
    before = runs(root)
    with pytest.raises(error, match=words) as refusal:
        train_model(name, recipe_name)
    assert "\n" not in str(refusal.value)
    assert runs(root) == before
    assert not ran


def test_a_recipe_that_diverges_fails_its_run(snapshot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the training process says ends the flow, as the same class."""
    from tasks.errors import TrainingDiverged

    wild = replace(tiny(), name="wild", optimiser=OptimiserSpec("sgd", lr=1e30), schedule=ScheduleSpec("constant"))
    monkeypatch.setitem(recipes.RECIPES, "wild", lambda: wild)
    with pytest.raises(TrainingDiverged, match="lower the learning rate") as caught:
        train_model(snapshot, "wild")
    assert caught.value.step is not None
