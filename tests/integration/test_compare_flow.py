"""Recipes against each other as a flow run: what is trained from what, and the table, figure and page that come out."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prefect.client.orchestration import get_client

import flows.compare
from flows.compare import compare_runs
from flows.train import Ready
from models.specs import Recipe
from storage import blobs, manifest
from storage.layout import Layout, layout, write_bytes
from storage.records import SPLITS, ComparisonRef, FileRef, PackRef
from tasks.compare import JudgedRun, compare
from tasks.errors import ConfigError
from tasks.evaluate import EvaluatedRun
from tasks.publish import publish_snapshot

COUNTS = {"train": 32, "val": 8, "test": 10}
ARMS = ["crops_thumbnail_narrow", "crops_patches_narrow", "crops_joint_narrow"]
FACTS = {"label": "Right & <wrong>", "unit": "", "better": "higher", "baseline_label": "coin"}


def jpeg(seed: int) -> bytes:
    """A small plain picture."""
    out = io.BytesIO()
    Image.new("RGB", (36, 24), (seed * 4, 90, 160)).save(out, "JPEG")
    return out.getvalue()


def scores(gain: float, photos: int = 10) -> pa.Table:
    """A scores.parquet in which photo n is right if gain + n / 10 reaches 1, and a null where it does not count."""
    right = [float(gain + number / 10 >= 1) for number in range(photos)]
    fields = [
        pa.field("source", pa.string()), pa.field("photo_id", pa.string()), pa.field("sample", pa.int32()),
        pa.field("weight", pa.float64()), pa.field("truth", pa.string()),
        pa.field("right", pa.float64(), metadata=FACTS), pa.field("right_baseline", pa.float64()),
    ]  # fmt: skip
    names = [str(number) for number in range(photos)]
    columns = [["camera"] * photos, names, [0] * photos, [1.0] * photos, ["same"] * photos, right, [0.5] * photos]
    return pa.table(columns, schema=pa.schema(fields))


def written(root: Layout, table: pa.Table, run_id: str) -> FileRef:
    """``table`` as the scores of a run."""
    path = root.run(run_id) / "scores.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return manifest.file_ref(root, path)


@pytest.fixture(scope="module")
def snapshot() -> str:
    """A published dataset of small photos."""
    root, name = layout(), "compare-flow"
    rows: list[dict[str, Any]] = []
    for seed, split in enumerate([name for name in SPLITS for _ in range(COUNTS[name])]):
        sha256 = blobs.put(root, jpeg(seed), "JPEG")
        rows.append({
            "source": "flickr", "photo_id": f"{seed:03d}", "owner_id": f"o{seed}", "sha256": sha256, "blob": sha256,
            "format": "JPEG", "net_op": 1, "width": 36, "height": 24, "long_px": 36, "short_px": 24,
            "exif_orientation": 1, "aspect_milli": 1500, "licence": "CC0", "split": split, "group_id": f"o{seed}",
            "verdict": True,
        })  # fmt: skip
    joined = manifest.write_rows(root, "publish", iter(rows))
    write_bytes(root.root / "page.html", b"<html></html>")
    publish_snapshot(root, name, {}, joined, {"report.html": manifest.file_ref(root, root.root / "page.html")})
    return name


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, PackRef, list[str]]]:
    """Trainings are noted (recipe, seed, pack, starts) and not done: the later arm is right more often."""
    noted: list[tuple[str, int, PackRef, list[str]]] = []

    def train_and_evaluate(
        ready: Ready, packed: PackRef, recipe: Recipe, seed: int, starts: Sequence[FileRef] = ()
    ) -> EvaluatedRun:
        noted.append((recipe.name, seed, packed, [start.path for start in starts]))
        run_id = hashlib.sha256(f"{recipe.name}{seed}".encode()).hexdigest()[:16]
        found = written(layout(), scores(0.3 * ARMS.index(recipe.name) + 0.1 * seed), run_id)
        return EvaluatedRun(run_id=run_id, evaluation=found, predictions=found, scores=found)

    def report(ready: Ready, packed: PackRef, recipe: Recipe, run: EvaluatedRun) -> None:
        (layout().run(run.run_id) / "reported").write_text(f"{recipe.name} on {ready.title} from {packed.digest}")

    monkeypatch.setattr(flows.compare, "train_and_evaluate", train_and_evaluate)
    monkeypatch.setattr(flows.compare, "report", report)
    monkeypatch.setattr(flows.compare, "weights_of", lambda run_id: FileRef(path=run_id, sha256="", size_bytes=0))
    return noted


def test_arms_of_one_seed_are_trained_one_after_the_other_and_compared(
    root: Layout, snapshot: str, trained: list[tuple[str, int, PackRef, list[str]]], prefect_server: None
) -> None:
    """Each recipe with each seed, the last from the others of its seed; arms of one frame size share a pack. The UI has
    a table of arms and a link; the folder has the table, the figure and the page; each run has a report of its own."""
    found = compare_runs(snapshot, ARMS, seeds=[1, 0], staged=True)
    assert [(arm, seed) for arm, seed, _, _ in trained] == [(arm, seed) for seed in (1, 0) for arm in ARMS]
    assert [len(starts) for *_, starts in trained] == [0, 0, 2] * 2
    assert trained[5][3] == [found.runs[arm][0] for arm in ARMS[:2]]
    packs = {arm: packed.digest for arm, _, packed, _ in trained}
    assert packs[ARMS[1]] == packs[ARMS[2]] != packs[ARMS[0]]
    for arm, run_ids in found.runs.items():
        for run_id in run_ids:
            said = (root.run(run_id) / "reported").read_text()
            assert said == f"{arm} on compare-flow, version 1 from {packs[arm]}"
    assert (found.seeds, Path(found.uri)) == ([0, 1], root.comparison(found.digest))
    check_files(found)
    with get_client(sync_client=True) as client:
        shown = {page.key: page.data for page in client.read_artifacts(offset=0)}
    tables = [json.loads(str(shown[f"comparison-compare-flow-{name}"])) for name in ("figures", "pairs")]
    assert tables[0][0]["crops joint narrow"].startswith("0.650 [")
    assert [row["arms"].split(" \N{MINUS SIGN} ")[0] for row in tables[1]].count("crops joint narrow") == 2
    assert "comparison-compare-flow-report" in shown


def check_files(found: ComparisonRef) -> None:
    """What a comparison leaves in its folder."""
    folder = Path(found.uri)
    told = json.loads((folder / "comparison.json").read_text())
    assert [each["arm"] for each in told["figures"][0]["arms"]] == ARMS
    assert [(run["arm"], run["seed"]) for run in told["runs"]] == [(arm, seed) for arm in ARMS for seed in (0, 1)]
    table = pq.read_table(folder / "comparison.parquet").to_pylist()
    assert [row["kind"] for row in table] == ["arm"] * 3 + ["pair"] * 3
    assert (folder / "figure.svg").read_bytes().startswith(b"<?xml")
    page = (folder / "report.html").read_text()
    assert "Right &amp; &lt;wrong&gt;" in page
    assert "<wrong>" not in page
    assert "crops joint narrow − crops patches narrow" in page


def test_runs_on_other_photos_are_refused(root: Layout) -> None:
    """As an error of ours that says what to do."""
    runs = [
        JudgedRun(arm=arm, seed=0, run_id=arm, scores=written(root, scores(0.5, photos), f"other-{arm}"))
        for arm, photos in (("a", 10), ("b", 9))
    ]
    with pytest.raises(ConfigError, match="evaluate both on one pack"):
        compare.fn(runs, "two")


@pytest.mark.parametrize(
    ("recipes", "seeds", "complaint"),
    [
        (ARMS[:1], [0], "two recipes or more"),
        ([], None, "two recipes or more"),
        ([ARMS[0], ARMS[0]], [0], "each recipe of a comparison is given once"),
        (ARMS, [1, 1], "each seed of a comparison is given once"),
        (ARMS, [], "at least one seed"),
        (["crops_thumbnail", "nonesuch"], [0], "unknown recipe 'nonesuch'"),
        (["crops_thumbnail", "crops_thumbnail_narrow"], [0], "judged on other samples"),
        (["crops_thumbnail", "categories_narrow"], [0], "judged on other samples"),
    ],
)
def test_impossible_comparisons_are_refused_before_anything_is_trained(
    recipes: list[str], seeds: list[int] | None, complaint: str
) -> None:
    """One sentence names what is wrong."""
    with pytest.raises(ConfigError, match=complaint):
        compare_runs.fn("compare-flow", recipes, seeds)


def test_figures_that_no_two_arms_share_leave_a_page_that_says_so(root: Layout) -> None:
    """Two arms that measured different things."""
    table = scores(0.5)
    other = table.rename_columns([*table.column_names[:5], "else", "else_baseline"])
    runs = [
        JudgedRun(arm=arm, seed=0, run_id=arm, scores=written(root, each, f"odd-{arm}"))
        for arm, each in (("a", table), ("b", other))
    ]
    found = compare.fn(runs, "nothing in common")
    assert "no figure in common" in (root.root / found.report.path).read_text()
