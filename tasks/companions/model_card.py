"""A model card: what a run learnt, on which photos, how well by which measure, and what it must not be used for.

Source: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv 1810.03993); the YAML header is what the
Hugging Face Hub reads.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.companions.card import kept, markdown, origins
from tasks.companions.licences import UNSTATED

LIMITS = {
    "crops": (
        "It looks for traces of the lens and of composition, so lenses, processing and subjects beyond those of its "
        "training photos may mislead it. A crop is nothing wrong: no answer proves that a photo was tampered with."
    ),
    "categories": (
        "It knows the labels of its training photos and no other: whatever it sees gets one of them. What owners "
        "call their photos is not what every viewer would."
    ),
}


def model_card(table: pa.Table, run_dir: Path, dataset: str) -> str:
    """README.md of a run, as Markdown. ``table``: the snapshot's joined rows; ``dataset``: its name and version."""
    trained, judged = (json.loads((run_dir / name).read_bytes()) for name in ("train.json", "evaluation.json"))
    packed = run_dir / "pack.json"  # which older runs lack
    rotate = json.loads(packed.read_bytes()).get("rotate") if packed.is_file() else None
    context = described(table, trained, judged, dataset) | {"rotate": rotate}
    return markdown().get_template("model_card.md.j2").render(context)


def described(
    table: pa.Table, trained: Mapping[str, Any], judged: Mapping[str, Any], dataset: str
) -> dict[str, Any]:  # fmt: skip
    """What the template says."""
    photos, recipe = kept(table), trained["recipe"]
    licences = Counter(pc.fill_null(photos["licence"], UNSTATED).to_pylist())
    header = {
        "library_name": "pytorch", "pipeline_tag": "image-classification", "datasets": [dataset],
        "tags": ["darkroom", recipe["system"]["kind"]],
    }  # fmt: skip
    return {
        "header": "".join(f"{name}: {json.dumps(value)}\n" for name, value in header.items()),
        "recipe": recipe,
        "trained": trained,
        "judged": judged,
        "dataset": dataset,
        "origins": origins(photos),
        "licences": licences.most_common(),
        "limits": LIMITS[recipe["system"]["kind"]],
        "lost": [each["label"] for each in judged["figures"] if not each["beats_baseline"]],
    }
