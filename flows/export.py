"""Export a snapshot (ImageFolder, Hugging Face Parquet or WebDataset, every photo upright) or a trained model.

Run: ``prefect deployment run 'export-dataset/crops'``, or ``export_dataset("crops", "huggingface")`` from Python;
``export_model("0123456789abcdef")`` for the model of a run: torch.export, ONNX, weights and a model card.
"""

import logging
from typing import Annotated, Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one
from flows.train import weights_of
from storage import catalog
from storage.layout import layout
from tasks.export import ExportRef, destination, export
from tasks.exports.export_photos import ExportRules, Format
from tasks.model_export import ExportedModel, export_run, onnx_versions
from tasks.predict import file_of, recipe_of

LOG = logging.getLogger(__name__)
RUNNER: Any = ThreadPoolTaskRunner(max_workers=1)  # Any: Prefect types its own runners as none of its runners
MaxSide = Annotated[int | None, Field(ge=16, description="Reduce larger photos to it; none: as they are.")]
Quality = Annotated[int, Field(ge=1, le=100, description="Of JPEGs that must be turned or reduced.")]
Target = Annotated[str | None, Field(description="A folder: empty, new, or an earlier export only; none: exports/.")]


@flow(name="export-dataset", flow_run_name="export {snapshot} as {format}", task_runner=RUNNER)
def export_dataset(
    snapshot: str, format: Format = "imagefolder", target: Target = None, max_side_px: MaxSide = None,
    quality: Quality = 95,
) -> ExportRef:  # fmt: skip
    """Export ``snapshot`` (``name`` or ``name@version``). What lies there already is not made again.

    Where photos were taken is left out of rows and files unless the dataset publishes it.
    """
    where = layout()
    where.check_writable()
    name, version = catalog.resolve(where, snapshot)
    locations = is_located(catalog.card(where, name, version))
    rules = ExportRules(format=format, max_side_px=max_side_px, quality=quality, locations=locations)
    folder = destination(where, name, version, rules, target)
    with only_one(f"export-{folder.name}"):
        exported = one("export", export.submit(name, version, rules, str(folder)))
    LOG.info("exported %s@%d as %s: %d bytes in %s", name, version, format, exported.size_bytes, exported.uri)
    artifacts.show_export(exported)
    return exported


@flow(name="export-model", flow_run_name="export model {run}", task_runner=RUNNER)
def export_model(run: str) -> ExportedModel:
    """Export the model of the finished run ``run`` into the folder ``model`` of that run."""
    where = layout()
    where.check_writable()
    weights, recipe = weights_of(run), recipe_of(where, run)
    evaluation, card = (file_of(where, run, name) for name in ("evaluation.json", "README.md"))
    exported = one("export", export_run.submit(run, weights, recipe.as_dict(), onnx_versions(), evaluation, card))
    artifacts.show_model(exported)
    return exported


def is_located(facts: dict[str, Any]) -> bool:
    """Whether a snapshot was published with the places where its photos were taken. ``facts``: its snapshot.json."""
    return bool(facts["rules"].get("locations", False))
