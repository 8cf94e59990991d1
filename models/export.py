"""The job "export": a trained network as torch.export and as ONNX, each compared with what it was before it is kept.

RUN.json's ``trained`` names the folder of the run that learnt. ``run_dir`` gets model.pt2, model.onnx and export.json:
inputs and outputs by name and shape (the first axis, photos, is free), and the largest difference that was found. The
network alone is exported: its inputs are what ``models.systems.System.draw_fixed`` makes of photos.

Source: PyTorch's documentation of torch.export and of torch.onnx (dynamo).
"""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import disk
from models.errors import ExportMismatch, Stopped
from models.jobs import Request, describe_packages, write_json
from models.predicting import decisions_of, load_trained
from models.systems import Arrays, System, Tensors

TOLERANCE = 1e-4  # of an output's largest value, or of 1: float32 sums in another order
COMPARED_PHOTOS = 5  # another number than the one it is traced with: the first axis must be free
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Answering(nn.Module):
    """A network that takes its inputs as one mapping and returns its outputs as a tuple, in a fixed order."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        outputs = self.model(**inputs)
        return tuple(outputs[name] for name in self.names)


def export_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Export the best weights of the run; raises ``ExportMismatch`` if what came out answers otherwise.

    Raises ``Stopped`` if ``must_stop`` says so between two steps, each of which takes seconds.
    """
    system, model, trained = load_trained(request, torch.device("cpu"))
    inputs = compared_inputs(system)
    with torch.no_grad():
        outputs: Tensors = model(**inputs)
    expected = {name: value.numpy() for name, value in outputs.items()}
    _go_on(must_stop)
    program = traced(model, system, tuple(expected))
    _go_on(must_stop)
    files = {"model.pt2": _export_torch(program, request.run_dir, inputs, expected)}
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if not missing:
        _go_on(must_stop)
        files["model.onnx"] = _export_onnx(program, request.run_dir, inputs, expected)
    about = {
        "run_id": request.run_id,
        "recipe": request.recipe.name,
        "recipe_digest": request.recipe.digest,
        "classes": list(getattr(system, "classes", ())),
        "decisions": decisions_of(trained),
        "inputs": {name: ["photos", *value.shape[1:]] for name, value in inputs.items()},
        "outputs": {name: ["photos", *value.shape[1:]] for name, value in expected.items()},
        "files": files,
        "left_out": f"ONNX needs {', '.join(missing)}: pip install 'darkroom[export]'" if missing else None,
        "packages": describe_packages(),
    }
    write_json(request.run_dir / "export.json", about)


def _go_on(must_stop: Callable[[], bool]) -> None:
    """Raise ``Stopped`` if told to."""
    if must_stop():
        raise Stopped("stopped while the network was exported: export again")


def compared_inputs(system: System) -> Tensors:
    """Inputs of the right shapes, each number drawn from U(0, 1) with a fixed seed."""
    rng = np.random.default_rng(0)
    shapes = {name: value.shape for name, value in system.example(COMPARED_PHOTOS).items()}
    return {name: torch.from_numpy(rng.random(shape, np.float32)) for name, shape in shapes.items()}


def traced(model: nn.Module, system: System, outputs: tuple[str, ...]) -> torch.export.ExportedProgram:
    """The network as a graph, for any number of photos."""
    inputs = system.example(2)
    photos = torch.export.Dim("photos", min=1)
    shapes = {"inputs": {name: {0: photos} for name in inputs}}
    with torch.no_grad():
        return torch.export.export(Answering(model, outputs).eval(), (inputs,), dynamic_shapes=shapes)


def _export_torch(
    program: torch.export.ExportedProgram, folder: Path, inputs: Tensors, expected: Arrays
) -> dict[str, Any]:
    """Write model.pt2 and read it again; its entry of export.json."""
    draft = folder / ".model.pt2"
    content = BytesIO()  # its own writer ends the process where the disk is full
    torch.export.save(program, content)
    disk.write(draft, content.getvalue())
    with torch.no_grad():
        found = torch.export.load(draft).module()(inputs)
    return _kept(draft, dict(zip(expected, (value.numpy() for value in found), strict=True)), expected)


def _export_onnx(
    program: torch.export.ExportedProgram, folder: Path, inputs: Tensors, expected: Arrays
) -> dict[str, Any]:
    """Write model.onnx and run it with ONNX Runtime; its entry of export.json."""
    import onnxruntime

    draft = folder / ".model.onnx"
    with redirect_stdout(StringIO()):  # the exporter tells its steps
        graph = torch.onnx.export(program, dynamo=True, output_names=list(expected), verbose=False)
    with disk.noticing_a_full_disk(draft):
        graph.save(draft, external_data=False)
    session = onnxruntime.InferenceSession(draft, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    fed = {name: inputs[_input_of(name, inputs)].numpy() for name in names}
    return _kept(draft, dict(zip(expected, session.run(None, fed), strict=True)), expected)


def _input_of(name: str, inputs: Mapping[str, Tensor]) -> str:
    """Our name of a graph's input, which may bear a prefix of the exporter."""
    return next(ours for ours in inputs if name == ours or name.endswith(f"_{ours}"))


def _kept(draft: Path, found: Arrays, expected: Arrays) -> dict[str, Any]:
    """Name the file if its answers are those of the network; raises ``ExportMismatch`` if not."""
    differences = {
        name: float(np.abs(found[name] - value).max() / max(1.0, np.abs(value).max()))
        for name, value in expected.items()
    }
    worst = max(differences, key=differences.__getitem__)
    if differences[worst] > TOLERANCE:
        message = (
            f"{draft.name[1:]} answers {worst!r} otherwise than the network, by {differences[worst]:.1e} of its range"
        )
        draft.unlink()
        raise ExportMismatch(message, output=worst, difference=differences[worst])
    file = draft.with_name(draft.name[1:])
    draft.replace(file)
    return {"sha256": disk.sha256_of(file), "size_bytes": file.stat().st_size, "largest_difference": differences}
