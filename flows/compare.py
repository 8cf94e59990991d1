"""Train several recipes with the same seeds on one snapshot and hold them against each other on its test photos.

    compare_runs("crops", ["crops_thumbnail", "crops_patches", "crops_joint"], seeds=[0, 1, 2], staged=True)

``staged``: the last recipe starts from what the others learnt with the same seed, as the joint network from its halves.
"""

import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import flow

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one
from flows.train import RUNNER, Ready, prepare, report, resolve, select, train_and_evaluate, weights_of
from models.frames import PackSpec
from models.specs import Recipe
from storage.layout import layout
from storage.records import ComparisonRef, PackRef
from tasks.compare import JudgedRun, compare
from tasks.errors import ConfigError
from tasks.pack import pack


@flow(name="compare-runs", flow_run_name="compare {recipes} on {snapshot}", task_runner=RUNNER)
def compare_runs(
    snapshot: str, recipes: list[str], seeds: list[int] | None = None, staged: bool = False
) -> ComparisonRef:
    """Train and evaluate each recipe with each seed (those of the first recipe if none are given), and compare.

    Raises ConfigError for fewer than two recipes, a recipe or seed given twice, one that is unknown, or recipes that
    are judged on other samples.
    """
    layout().check_writable()
    arms = [resolve(name) for name in recipes]
    chosen = list(arms[0].seeds) if seeds is None and arms else list(seeds or ())
    check(recipes, chosen)
    check_samples(arms)
    ready = prepare(snapshot, max(arms, key=lambda recipe: recipe.system.needs_labels))  # the one that asks for most
    with only_one(f"training-{socket.gethostname()}"):
        packs = pack_for(ready, arms)
        runs = [run for seed in chosen for run in train_arms(ready, packs, arms, seed, staged)]
    title = f"{', '.join(recipes)} on {ready.title}"
    ordered = sorted(runs, key=lambda run: (recipes.index(run.arm), run.seed))
    found = one("compare", compare.submit(ordered, title))
    uri = str(layout().comparison(found.digest))
    ids = {arm: [run.run_id for run in ordered if run.arm == arm] for arm in recipes}
    result = ComparisonRef(digest=found.digest, uri=uri, seeds=sorted(chosen), runs=ids)
    artifacts.show_comparison(snapshot.partition("@")[0], result, title)
    return result


def check(recipes: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise ConfigError unless there are two recipes to compare and a seed, each once."""
    if len(recipes) < 2:
        raise ConfigError(f"a comparison takes two recipes or more, not {', '.join(recipes) or 'none'}")
    for what, given in (("recipe", recipes), ("seed", seeds)):
        if len(set(given)) < len(given):
            raise ConfigError(f"each {what} of a comparison is given once, not {', '.join(map(str, given))}")
    if not seeds:
        raise ConfigError("a comparison takes at least one seed: give seeds=[0, 1, 2], or leave them out")


def check_samples(arms: Sequence[Recipe]) -> None:
    """Raise ConfigError unless all recipes are judged on the same samples of the same photos."""
    first, *others = arms
    for other in others:
        if judged_on(other) != judged_on(first):
            message = (
                f"{first.name} and {other.name} are judged on other samples: compare recipes of one system, with one"
                " crop law and one evaluation"
            )
            raise ConfigError(message)


def judged_on(recipe: Recipe) -> tuple[Any, ...]:
    """What decides the samples of an evaluation and their truth."""
    system = recipe.system
    parts = (getattr(system.evaluation, name, None) for name in ("crops_per_photo", "seed"))
    return (system.kind, getattr(system, "crop_law", None), *parts)


def pack_for(ready: Ready, arms: Sequence[Recipe]) -> dict[PackSpec, PackRef]:
    """The packs that ``arms`` are trained on, each made once."""
    selection = select(ready.joined)
    specs = dict.fromkeys(recipe.pack for recipe in arms)
    return {spec: one("pack", pack.submit(selection, **asdict(spec), rotate=ready.rotate)) for spec in specs}


def train_arms(
    ready: Ready, packs: dict[PackSpec, PackRef], arms: Sequence[Recipe], seed: int, staged: bool
) -> list[JudgedRun]:
    """One run of each arm with ``seed``, one after the other, each with its own report and model card; ``staged``: the
    last starts from all before it."""
    runs: list[JudgedRun] = []
    for number, recipe in enumerate(arms):
        is_joint = staged and number == len(arms) - 1
        starts = [weights_of(run.run_id) for run in runs] if is_joint else []
        found = train_and_evaluate(ready, packs[recipe.pack], recipe, seed, starts)
        report(ready, packs[recipe.pack], recipe, found)
        runs.append(JudgedRun(arm=recipe.name, seed=seed, run_id=found.run_id, scores=found.scores))
    return runs
