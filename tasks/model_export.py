"""A trained model for use elsewhere: torch.export, ONNX and plain weights, each checked against what was trained."""

import json
import logging
import os
import shutil
from importlib import metadata

from prefect import task

from storage import manifest
from storage.layout import drafting, layout, write_bytes
from storage.records import FileRef, Record
from tasks import caching
from tasks.fitting import run_fit

LOG = logging.getLogger(__name__)
ONNX = ("onnx", "onnxscript", "onnxruntime")  # which may be absent, and then there is no model.onnx
NOT_EVALUATED = (
    "This run was not evaluated: no threshold and no temperature were chosen on val. Probabilities stand as the "
    "network gives them."
)
FILES = ("model.pt2", "model.onnx", "weights.safetensors", "export.json", "README.md")


class ExportedModel(Record):
    """The files of an exported model; ``left_out``: what could not be made here, and what it takes; ``is_evaluated``:
    whether its run was judged, and has chosen its decisions."""

    run_id: str
    files: list[FileRef]
    left_out: str | None = None
    is_evaluated: bool = True


def onnx_versions() -> str:
    """The packages that make and check model.onnx, with their versions: another one makes another export."""
    return ", ".join(f"{package} {_version(package)}" for package in ONNX)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@task(**caching.stage("export-model", retries=0))
def export_run(
    run_id: str, weights: FileRef, recipe: dict[str, object], onnx: str, evaluation: FileRef | None,
    card: FileRef | None,
) -> ExportedModel:  # fmt: skip
    """Export the best weights of a run into the folder ``model`` of the run.

    ``onnx``: what ``onnx_versions`` says, so that an export is made again where it can be made better. ``evaluation``
    and ``card``: the run's evaluation.json, whose decisions export.json repeats, and its README.md, if it has them; the
    export of a run that was not evaluated says so in both files.
    """
    where = layout()
    run_dir = where.run(run_id)
    folder = run_dir / "model"
    with drafting(run_dir) as draft:
        draft.mkdir()
        request = {"run_id": run_id, "pack_dir": str(run_dir), "recipe": recipe, "trained": str(run_dir)}
        run_fit("export", draft, request, lambda event: None)
        shutil.copyfile(where.root / weights.path, draft / "weights.safetensors")
        about = json.loads((draft / "export.json").read_bytes()) | {"is_evaluated": evaluation is not None}
        write_bytes(draft / "export.json", (json.dumps(about, indent=2) + "\n").encode())
        if evaluation is None:  # a card that is there would be of an earlier training
            write_bytes(draft / "README.md", f"# Model of run {run_id}\n\n{NOT_EVALUATED}\n".encode())
        elif card is not None:
            shutil.copyfile(where.root / card.path, draft / "README.md")
        for path in draft.iterdir():
            if path.name not in FILES:
                path.unlink()  # the request and the log of the process
        shutil.rmtree(folder, ignore_errors=True)  # an earlier export, or what is left of one
        os.rename(draft, folder)
    if evaluation is None:
        LOG.warning("run %s was not evaluated: its export has neither threshold nor temperature", run_id)
    LOG.info("exported run %s with %s: %s", run_id, onnx, ", ".join(sorted(path.name for path in folder.iterdir())))
    files = [manifest.file_ref(where, folder / name) for name in FILES if (folder / name).exists()]
    return ExportedModel(run_id=run_id, files=files, left_out=about["left_out"], is_evaluated=evaluation is not None)
