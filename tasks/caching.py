"""What identifies the output of a task, and every retry, time-out and backoff number.

The key of a task run is ``stage/digest`` over its inputs (references count by the digest of what they name), the code
that makes the output (the syntax trees of a declared list of modules) and the versions of the libraries that decide its
bytes. Clocks, run ids, machines and paths never enter. A hit counts only if every file that the kept result names is
still there with its bytes; otherwise the record is overwritten by one that has expired, which Prefect takes for a miss.

Source: Prefect 3, ``task_engine`` and ``transactions``; every built-in policy mixes in something that must not count or
leaves out something that must.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from prefect.utilities.hashing import hash_objects
from pydantic import BaseModel

from storage import garbage, manifest
from storage.layout import Layout, layout
from storage.records import FileRef, ManifestRef, PackRef
from storage.settings import CHECKOUT
from tasks.errors import TransientError

TASK_RETRIES = 3
TASK_RETRY_DELAY_S = [5.0, 30.0, 60.0]  # together they outlast a site that is gone for a minute
TASK_RETRY_JITTER = 0.2


@dataclass(frozen=True)
class Code:
    """What makes the output of a stage: our modules (packages count with all their modules), libraries, and a version.

    ``version`` alone stands for stages that ask a site: an edit of their code must not spend quota again. ``files`` are
    folders of the checkout whose files count by their bytes.
    """

    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    version: str = "1"
    files: tuple[str, ...] = ()


_PICTURES = ("tasks.pictures.imaging", "tasks.pictures.exif", "tasks.pictures.containers")
_DECODERS = ("simplejpeg", "pillow", "numpy")
_COPIES = ("tasks.dedup", "tasks.duplicates", "tasks.pictures.hashing", *_PICTURES)
_GROUPING = ("tasks.splitting", "tasks.duplicates.groups")
CODE: dict[str, Code] = {
    "search": Code(version="1"),
    "download": Code(version="2"),
    "audit": Code(version="1"),
    "measure": Code(
        ("tasks.measure", "tasks.pictures.hashing", "tasks.pictures.edits", "tasks.pictures.programs",
         "tasks.pictures.quantisation", *_PICTURES, "storage.records"),
        _DECODERS,
    ),
    "filter": Code(("tasks.filter", "storage.records"), ("duckdb",)),
    "rotate": Code(
        ("tasks.rotate", "tasks.pictures.lossless", *_PICTURES, "storage.records"), ("turbojpeg", *_DECODERS)
    ),
    "dedup": Code((*_COPIES, "storage.records"), ("duckdb", *_DECODERS)),
    "labels": Code(
        ("tasks.labels", "tasks.label_account", "tasks.vocabulary", "storage.overrides", "storage.records"),
        ("duckdb", "simplemma"),
    ),
    "split": Code(("tasks.split", *_GROUPING, "storage.records"), ("duckdb", "numpy")),
    "leakage": Code(
        ("tasks.leakage", "tasks.split", *_COPIES, *_GROUPING, "storage.records"),
        ("duckdb", *_DECODERS),
    ),
    "join": Code(("tasks.join", "storage.records"), ("duckdb",)),
    "pack": Code(("tasks.pack", "tasks.pictures.odd_pictures", "models.frames", *_PICTURES), _DECODERS),
    "train": Code(("models",), ("torch", "torchvision", "numpy")),
    "evaluate": Code(("models",), ("torch", "torchvision", "torchmetrics", "numpy")),
    "export-model": Code(("models", "tasks.model_export"), ("torch", "torchvision")),
    "predict": Code(
        ("models", "tasks.predict", "tasks.pack", "tasks.rotate", "tasks.pages", "tasks.pictures", "tasks.fitting",
         "tasks.sources.imports.files", "tasks.verdicts"),
        ("torch", "torchvision", "matplotlib", "jinja2", *_DECODERS), files=("tasks/templates",),
    ),
    "compare": Code(
        ("tasks.compare", "tasks.report", "tasks.pages", "tasks.companions", *_PICTURES, "models.comparison",
         "models.metrics", "models.errors", "storage.records"),
        ("pyarrow", "matplotlib", "jinja2", *_DECODERS),
        files=("tasks/templates",),
    ),
    "report": Code(
        ("tasks.report", "tasks.pages", "tasks.companions", *_PICTURES, "storage.snapshots", "storage.records"),
        ("matplotlib", "jinja2", "duckdb", *_DECODERS),
        files=("tasks/templates",),
    ),
}  # fmt: skip


def stage(stage_name: str, /, **options: Any) -> dict[str, Any]:
    """Options of ``@task`` for a stage: cached by content below the data root, retried if the error is transient."""
    return {
        "name": stage_name,
        "task_run_name": options.get("name", stage_name),  # without Prefect's random ending
        "cache_policy": StageCache(stage=stage_name, code=code_as_imported(CODE[stage_name])),
        "result_storage": layout().cache,
        "result_serializer": "json",
        "retries": TASK_RETRIES,
        "retry_delay_seconds": TASK_RETRY_DELAY_S,
        "retry_jitter_factor": TASK_RETRY_JITTER,
        "retry_condition_fn": is_transient,
    } | options


def is_transient(task: Task[Any, Any], task_run: TaskRun, state: State) -> bool:
    """Whether another try may help: only errors of the transient branch say so."""
    try:
        state.result()
    except TransientError:
        return True
    except BaseException:  # noqa: BLE001  whatever it is, and cancellation too, is not ours to try again
        return False
    return False


@dataclass
class StageCache(CachePolicy):
    """The one cache policy of Darkroom."""

    stage: str = ""
    code: str | None = None  # the digest of its code as it was imported; None: of what lies on disk

    def compute_key(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """``stage/digest``; turns a kept result whose files are gone or damaged into a miss."""
        key = f"{self.stage}/{digest(self.stage, inputs, self.code)}"
        store = task_ctx.result_store
        if store.exists(key):
            kept = list(references(store.read(key).result))
            if all(intact(layout(), ref) for ref in kept):
                garbage.mark_used(layout(), kept)
            else:
                store.write(key=key, obj=None, expiration=datetime.now(UTC) - timedelta(seconds=1))
        return key


def digest(stage_name: str, inputs: Mapping[str, Any], code: str | None = None) -> str:
    """What identifies the output of ``stage_name`` for ``inputs``; ``code``: digest of its code, None: as on disk."""
    tokens = {name: token(value) for name, value in inputs.items()}
    return str(hash_objects(stage_name, tokens, code or code_digest(CODE[stage_name]), raise_on_failure=True))


def code_as_imported(code: Code) -> str | None:
    """The digest of ``code`` now, when it is imported: an edit during a run must not be taken for what the run does.

    None for ``models``: the process that runs it starts later, from what lies on disk then.
    """
    return None if "models" in code.modules else code_digest(code)


def token(value: Any) -> Any:
    """``value`` as plain data that is equal in every process; references count by the digest of what they name."""
    if isinstance(value, ManifestRef | FileRef | PackRef):
        return value.sha256
    if isinstance(value, BaseModel):
        return {"model": type(value).__name__, **{name: token(item) for name, item in value}}
    if isinstance(value, Mapping):
        return {str(name): token(item) for name, item in sorted(value.items())}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [token(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a cached task cannot take a {type(value).__name__}: pass plain data or a reference")


def references(value: Any) -> Iterator[ManifestRef | FileRef | PackRef]:
    """Every reference inside ``value``, however deep."""
    if isinstance(value, ManifestRef | FileRef | PackRef):
        yield value
    elif isinstance(value, BaseModel):
        for _, item in value:
            yield from references(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from references(item)


def intact(where: Layout, ref: ManifestRef | FileRef | PackRef) -> bool:
    """Whether what ``ref`` names is there, unharmed."""
    if isinstance(ref, PackRef):
        folder = where.pack(ref.digest)
        card = folder / "pack.json"
        size_bytes = sum(file.stat().st_size for file in folder.glob("*"))
        return card.is_file() and size_bytes == ref.size_bytes and manifest.sha256_file(card) == ref.sha256
    return manifest.intact(where, ref)


def code_digest(code: Code) -> str:
    """Digest of the syntax trees (no comments, docstrings or layout) and library versions of ``code``."""
    trees = {str(name): tree for module in code.modules for name, tree in module_trees(module)}
    versions = {library: metadata.version(library) for library in code.libraries}
    files = sorted(file for folder in code.files for file in (CHECKOUT / folder).rglob("*") if file.is_file())
    data = [(file.name, manifest.sha256_file(file)) for file in files]
    return hashlib.sha256(
        repr((sorted(trees.items()), sorted(versions.items()), code.version, data)).encode()
    ).hexdigest()


def module_trees(module: str) -> Iterator[tuple[str, str]]:
    """(name, syntax tree) of a module, or of all modules of a package; nothing is imported but parent packages."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{module!r} is declared as the code of a stage, but is not there")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    for file in files:
        yield f"{module}:{file.relative_to(origin.parent)}", _tree(file, file.stat().st_mtime_ns)


@cache
def _tree(file: Path, mtime_ns: int) -> str:
    """The syntax tree of ``file`` without docstrings."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
