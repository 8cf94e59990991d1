"""The check that a network's last layer suits its loss: a loss that squashes outputs itself wants them raw (logits).

A softmax under a cross-entropy, or a sigmoid under a binary one, trains without an error, and badly: for K classes the
loss cannot fall below ln(1 + (K - 1) / e).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.errors import ConfigError
from models.systems import Batch, System, Tensors

_SQUASHING = {
    "Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid", "LogSigmoidForward", "Softplus", "Logsumexp",
    "BinaryCrossEntropyWithLogits",
}  # fmt: skip
_RESHAPING = {
    "View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "T", "Permute", "Clone",
    "Alias", "Slice", "Select", "Index", "IndexSelect", "Expand", "ToCopy", "Split", "Unbind",
}  # fmt: skip
_BOUNDED = {  # what leaves a squashed value within bounds: by constants alone, or else it has more than one input
    "Clamp", "ClampMin", "ClampMax", "Add", "Sub", "Rsub", "Mul", "Div", "Neg", "NativeDropout",
}  # fmt: skip
_JOINING = {"Cat", "Stack"}
Node = torch.autograd.graph.Node


def refuse_squashed_outputs(model: nn.Module, system: System, batch: Batch) -> None:
    """Raise ``ConfigError`` if an output ends in a softmax or sigmoid though the loss applies one to it itself.

    Looks at what computed the output and at what the loss does with it first, so it finds layers and plain functions
    alike, also behind a reshape, limits, a change by constants, where several squashed values are joined, and where
    something is divided by its own sum. A factor that is learnt takes the bounds away, and passes.
    """
    was_training = model.training
    with torch.enable_grad():
        outputs: Tensors = model.eval()(**batch.inputs)
        model.train(was_training)
        given = {name: value.detach().requires_grad_() for name, value in outputs.items()}
        loss = system.losses(given, batch.targets)["total"].sum()
    for name, value in outputs.items():
        squashed = _squashing(value.grad_fn)
        if squashed and _SQUASHING & set(_first_uses(loss, given[name])):
            raise ConfigError(
                f"output {name!r} of {type(model).__name__} ends in {squashed.lower()}, but the loss applies one itself"
                " and wants logits: remove the last activation",
                model=type(model).__name__,
                output=name,
            )


def _squashing(node: Node | None) -> str:
    """The operation that squashed a value last, all of it; nothing if none did, or more was learnt after it."""
    name = "" if node is None else _operation(node)
    if node is None or name in _SQUASHING:
        return name
    inputs = [before for before, _ in node.next_functions if before is not None]
    if name == "Div" and len(inputs) == 2 and _is_sum_of(inputs[1], inputs[0]):
        return "a softmax by hand"
    if name in _JOINING or (name in _RESHAPING | _BOUNDED and len(inputs) == 1):
        found = [_squashing(each) for each in inputs]
        return found[0] if found and all(found) else ""
    return ""


def _is_sum_of(total: Node | None, part: Node) -> bool:
    """Whether ``total`` is the sum of ``part``, reshaped or changed by constants at most."""
    while total is not None and _operation(total) in _RESHAPING | _BOUNDED | {"Sum"}:
        inputs = [before for before, _ in total.next_functions if before is not None]
        if len(inputs) != 1:
            return False
        if _operation(total) == "Sum" and inputs[0] is part:
            return True
        total = inputs[0]
    return False


def _first_uses(loss: Tensor, value: Tensor) -> Iterator[str]:
    """What is done to ``value`` first on each of its ways into ``loss``, reshaping aside."""
    waiting, seen = [(loss.grad_fn, "")], set()
    while waiting:
        node, use = waiting.pop()
        if node is None or (node, use) in seen:
            continue
        seen.add((node, use))
        if getattr(node, "variable", None) is value:
            yield use
        inner = use if _operation(node) in _RESHAPING else _operation(node)
        waiting.extend((before, inner) for before, _ in node.next_functions)


def _operation(node: Node) -> str:
    """The operation whose gradient ``node`` computes: "SoftmaxBackward0" -> "Softmax"."""
    return node.name().split("Backward")[0].lstrip("_")
