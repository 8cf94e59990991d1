"""What README.md promises is there: commands, deployments, variables, examples, reasons and paths."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any, get_args

import yaml

from models.recipes import RECIPES
from storage import catalog, ledger, purge
from storage import settings as settings_module
from storage.layout import Layout
from storage.records import SPLITS
from storage.settings import Settings
from tasks import dedup, download, filter, join, labels, split, verdicts
from tasks.dataset import Dataset
from tasks.pictures import imaging

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
CODE = "\n".join([*re.findall(r"^    .*$|^```.*?^```", README, re.M | re.S), *re.findall(r"`[^`\n]+`", README)])
PAGES = (
    "report.html", "README.md", "croissant.json", "ATTRIBUTION.csv", "LICENCES.csv", "leakage.json", "labels.json",
    "row_hashes.arrow", "snapshot.json",
)  # fmt: skip
FLOWS = {  # by entrypoint in prefect.yaml
    "flows.refresh.refresh_dataset": "refresh-dataset", "flows.train.train_model": "train-model",
    "flows.audit.audit_dataset": "audit-dataset", "flows.pipeline.pipeline": "pipeline",
    "flows.decide.decide_photos": "decide-photos", "flows.export.export_dataset": "export-dataset",
    "flows.snapshots.diff_snapshots": "diff-snapshots", "flows.snapshots.roll_back": "roll-back",
    "flows.snapshots.collect_garbage": "collect-garbage", "flows.compare.compare_runs": "compare-runs",
    "flows.predict.predict_photos": "predict-photos", "flows.export.export_model": "export-model",
}  # fmt: skip


def section(title: str) -> str:
    """The text below a heading, to the next of any level."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", README, re.M | re.S)
    assert found, f"README.md has no section {title!r}"
    return found[1]


def table(first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called that, without its head."""
    found = re.search(rf"^\| {first_heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.M)
    assert found, f"README.md has no table that begins with {first_heading!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def python_examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_every_make_target_is_there() -> None:
    """Whoever types what the README says is not told that there is no such rule."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (CHECKOUT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", CODE))
    assert {"demo", "ui", "stop", "deploy", "worker", "test", "check"} <= named <= targets


def test_every_module_that_is_run_can_be_run() -> None:
    """``python -m`` finds each, and each has something to do."""
    makefile = (CHECKOUT / "Makefile").read_text()
    modules = set(re.findall(r"python -m ([a-z_.]+)", CODE)) | set(re.findall(r"python -m (flows[a-z_.]+)", makefile))
    assert {"tasks.sources.standin", "flows.demo", "flows.services"} <= modules
    for module in modules:
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        package_main = importlib.util.find_spec(f"{module}.__main__") if spec.submodule_search_locations else None
        assert package_main or '__name__ == "__main__"' in Path(spec.origin).read_text(), module


def test_every_deployment_is_in_the_catalogue_and_the_other_way_round() -> None:
    """The table lists what prefect.yaml has; commands name nothing else."""
    catalogue = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
    there = {f"{FLOWS[each['entrypoint']]}/{each['name']}" for each in catalogue}
    assert {row[0].strip("`") for row in table("deployment")} == there
    assert (
        set(re.findall(rf"\b(?:{'|'.join(FLOWS.values())})/[a-z0-9-]+", CODE.replace(".py", ""))) - {"pipeline/py"}
        == there
    )


def test_the_table_of_variables_is_the_list_of_settings() -> None:
    """Every variable is a setting and every setting has its line, here and in the docstring of the settings."""
    fields = Settings.model_fields
    there = {str(field.validation_alias or f"DARKROOM_{name.upper()}") for name, field in fields.items()}
    assert {name for row in table("variable") for name in re.findall(r"[A-Z0-9_]{4,}", row[0])} == there
    assert set(re.findall(r"^``([A-Z0-9_]+)``", settings_module.__doc__ or "", re.M)) == there


def test_the_examples_are_python() -> None:
    """Each compiles, and imports what there is."""
    assert len(python_examples()) >= 2
    for example in python_examples():
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module:
                source = importlib.util.find_spec(node.module)
                assert source is not None
                assert source.origin is not None
                modules = {path.stem for path in Path(source.origin).parent.glob("*.py")}
                names = {alias.name for alias in node.names}
                assert names <= modules | set(re.findall(r"\w+", Path(source.origin).read_text()))


def test_the_dataset_of_the_example_is_one() -> None:
    """It can be copied as it stands, and names a recipe that exists."""
    calls = [
        node
        for example in python_examples()
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pipeline"
    ]
    [call] = calls
    given: dict[str, Any] = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}
    assert set(given) == {"dataset", "recipe"}
    assert Dataset.model_validate(given["dataset"]).name == "harbours"
    assert given["recipe"] in RECIPES


def test_every_recipe_is_listed() -> None:
    """The table of recipes is the registry."""
    assert {name for row in table("recipe") for name in re.findall(r"`(\w+)`", row[0])} == set(RECIPES)


def test_the_table_of_reasons_is_the_list_of_reasons() -> None:
    """Every reason that a stage can give is listed under it, and no other."""
    listed = {
        stage: set(re.findall(r"`([a-z_]+)`", row[1])) - {"duplicate_of"}
        for row in table("stage")
        for stage in row[0].split(", ")
    }
    assert listed == producible()


def producible() -> dict[str, set[str]]:
    """The reasons that the code of each stage can give."""
    bad_image = set(get_args(imaging.BadReason))
    outcomes = set(get_args(verdicts.Outcome)) - {"ok", "not_modified"}
    return {
        "download": outcomes
        | bad_image
        | constants(download, "download_reason")
        | constants(catalog, "download_reason")
        | {download.NOT_DOWNLOADABLE}
        | constants(join, "download_reason"),
        "measure": bad_image - {"too_many_pixels"},  # that is asked of the header, at the download
        "rotate": bad_image - {"too_many_pixels"},
        "filter": set(get_args(filter.FilterReason)),
        "dedup": named_in_arrays(dedup),
        "labels": constants(labels, "labels_reason"),
        "split": named_in_arrays(split),
        purge.REMOVAL: {purge.REMOVED},
    }


def constants(module: Any, column: str) -> set[str]:
    """Texts that ``module`` assigns to ``column``: in a mapping, under a key, or in SQL."""
    source = Path(module.__file__).read_text()
    found = set(re.findall(rf"coalesce\({column}, '(\w+)'\)", source))
    found |= set(re.findall(rf"then '(\w+)'\s+(?:end as|else) {column}", source))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            pairs = [(node.targets[0].slice, node.value)]
        else:
            continue
        found |= {
            str(value.value)
            for key, value in pairs
            if isinstance(key, ast.Constant) and key.value == column and isinstance(value, ast.Constant) and value.value
        }
    return found


def named_in_arrays(module: Any) -> set[str]:
    """The texts that ``module`` gives out from an array of reasons."""
    arrays = re.findall(r"pa\.array\(\[([^\]]+)\]\)\.take", Path(module.__file__).read_text())
    return set(re.findall(r'"(\w+)"', " ".join(arrays)))


def tree_paths() -> set[str]:
    """Every path of the tree in "What you get", relative to the root; ``{a,b}`` stands for one of each."""
    block = re.search(r"^    data/\n((?:      .*\n)+)", section("What you get"), re.M)
    assert block
    found, folders = set(), [(0, "")]
    for line in block[1].splitlines():
        depth = len(line) - len(line.lstrip())
        while folders[-1][0] >= depth:
            folders.pop()
        parent = folders[-1][1]
        for name in re.split(r"\s{2,}", line.strip()):
            if re.fullmatch(r"(?:[^\s<]|<[^>]*>)+(?:/|\.[a-z]+)", name):
                found |= {f"{parent}{each}" for each in spelt_out(name)}
        first = line.strip().split("  ")[0]
        if first.endswith("/"):
            folders.append((depth, f"{parent}{first}"))
    return {path.rstrip("/") for path in found}


def spelt_out(name: str) -> list[str]:
    """``a/{b,c}/`` as ``a/b/`` and ``a/c/``."""
    start, _, rest = name.partition("{")
    middle, _, end = rest.partition("}")
    return [f"{start}{part}{end}" for part in middle.split(",")] if rest else [name]


def test_the_tree_is_the_layout() -> None:
    """Every path that is shown is one that Layout gives, or a file that a stage writes into one."""
    where = Layout(Path("/"))
    snapshot = where.snapshot("crops", 1)
    there = [
        where.blob("<sha256>", "JPEG").parents[2] / "ab" / "cd" / where.blob("<sha256>", "JPEG").name,
        where.stage("<stage>", "<sha256>"), where.dataset("crops"), snapshot, where.pack("<digest>"),
        where.run("x").with_name("<run id>"), where.cache, where.prefect, where.removals,
        *(where.ledger("crops", kind) for kind in ledger.KINDS),
        *(snapshot / f"{part}.parquet" for part in (*SPLITS, "rejected")),
        *(snapshot / name for name in PAGES),
        where.exports / "<export>", where.comparison("<digest>"), where.prediction("<digest>"),
        where.weights("<account>", "<sha256>", ".pth").parent, where.pauses,
    ]  # fmt: skip
    assert tree_paths() == {path.relative_to("/").as_posix() for path in there}
