"""Controls for crop detection: what a lens leaves has to be learnt, and where there is none, nothing may be.

Photos are taken by the synthetic camera of scenes that are scale-free by construction (``crop_scenes``), so nothing but
its lens tells a crop from a whole photo, nor where it was cut; the leaves of the photo source (``--scenes leaves``) are
scale-free only roughly, which their spectra show. Every arm (by default thumbnail, patches and both) is trained
with every seed at every strength of the lens, the last arm from the runs of the others with the same seed, as
``compare_runs(..., staged=True)`` does; the arms are then compared on the same test photos. At strength 0 every figure
has to stay at its trivial answer: above it something has been seen, and below a coin's too (where nothing is to be
seen, one interval in twenty does not hold it all the same). The same arm that was told the truth about other photos
(shuffled labels) has to as well, and so have probes that see only the width or the power spectrum of a sample
(``crop_probes``); what these tell under the official protocol is reported, not judged.

    python tests/bench/crop_controls.py --work controls --out controls.json

Needs torch, torchvision, NumPy, pyarrow, Pillow and safetensors alone. A run that is found in ``--work`` is not done
again if it is of the same recipe, photos, seed and starts, by the same ``models``.
"""

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import crop_packs
import crop_probes
import pyarrow.parquet as pq
from crop_scenes import PhotoSpec

from models import comparison
from models.checkpoint import best_weights
from models.frames import PackSpec
from models.jobs import choose_device
from models.metrics import Estimate
from models.recipes import resolve
from models.specs import Recipe

ROOT = Path(__file__).resolve().parents[2]
ARMS = ["crops_thumbnail_narrow", "crops_patches_narrow", "crops_joint_narrow"]
WANTED = {  # figure: (least value over seeds, what the interval's floor must exceed), at full strength
    "patch_top1": (0.30, 0.084),
    "crop_accuracy": (0.0, 0.5),
    "rectangle_iou_crops": (0.0, 0.550),
}
COIN = {"crop_accuracy"}  # below its baseline is learnt, too; the others' is the best constant, which no chance beats
STUDENT = dict(  # t at 97.5 %, by number of seeds
    enumerate(
        (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069),
        start=2,
    )
)  # fmt: skip
Figure = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One row of the table; ``holds`` is None for what is reported without being judged."""

    control: str
    arm: str
    figure: str
    measured: str
    wanted: str
    holds: bool | None

    def row(self) -> str:
        """As a line of Markdown."""
        verdict = {True: "PASS", False: "**FAIL**", None: "reported"}[self.holds]
        return f"| {self.control} | {self.arm} | {self.figure} | {self.measured} | {self.wanted} | {verdict} |"


@dataclass(frozen=True)
class Bench:
    """Where the work lies and how it is done."""

    work: Path
    counts: dict[str, int]
    seeds: list[int]
    options: argparse.Namespace

    def packs(self, strength: float, recipes: Sequence[Recipe]) -> dict[PackSpec, Path]:
        """A pack for each recipe, of the same photos."""
        specs = [recipe.pack for recipe in recipes]
        photo = PhotoSpec(self.options.scenes, self.options.noise, self.options.quality or None)
        return crop_packs.packs(self.work, self.counts, strength, specs, photo, self.options.workers)

    def run(self, name: str, recipe: Recipe, pack_dir: Path, seed: int, starts: Sequence[Path] = ()) -> Path:
        """The folder of a run that is trained and judged; one that is already there is taken as it is."""
        run_dir = self.work / "runs" / run_name(name, recipe, pack_dir, seed, starts)
        request = {
            "run_id": run_dir.name, "run_dir": str(run_dir), "pack_dir": str(pack_dir), "recipe": recipe.as_dict(),
            "seed": seed, "threads": self.options.threads, "device": self.options.device,
            "start_from": [str(start) for start in starts],
        }  # fmt: skip
        for job, result in (("train", "train.json"), ("evaluate", "evaluation.json")):
            if (run_dir / result).exists():
                continue
            run_dir.mkdir(parents=True, exist_ok=True)
            file = run_dir / f"{job}.run.json"
            file.write_text(json.dumps({**request, "job": job}))
            done = subprocess.run([sys.executable, "-m", "models.fit", str(file)], cwd=ROOT, check=False)
            if done.returncode:
                sys.exit(f"{job} of {run_dir.name} ended with exit code {done.returncode}")
        return run_dir

    def arms(self, strength: float) -> dict[str, dict[int, Path]]:
        """Every arm with every seed; seeds beside each other, as many as ``--jobs`` says."""
        recipes = [self.recipe(name) for name in self.options.arms]
        packs = self.packs(strength, recipes)

        def one_seed(seed: int) -> list[Path]:
            done: list[Path] = []
            for recipe in recipes:
                starts = done if recipe is recipes[-1] and self.options.staged else []
                done.append(self.run(f"lens-{strength:g}", recipe, packs[recipe.pack], seed, starts))
            return done

        with ThreadPoolExecutor(self.options.jobs) as pool:
            by_seed = dict(zip(self.seeds, pool.map(one_seed, self.seeds), strict=True))
        return {
            recipe.name: {seed: runs[number] for seed, runs in by_seed.items()} for number, recipe in enumerate(recipes)
        }

    def shuffled(self, strength: float) -> dict[int, Path]:
        """The last arm, from nothing and told the truth about other photos, with every seed."""
        recipe = self.recipe(self.options.arms[-1])
        recipe = replace(recipe, name="shuffled", frozen=(), system=replace(recipe.system, shuffled_labels=True))
        pack_dir = self.packs(strength, [self.recipe(name) for name in self.options.arms])[recipe.pack]
        with ThreadPoolExecutor(self.options.jobs) as pool:
            runs = pool.map(lambda seed: self.run("shuffled", recipe, pack_dir, seed), self.seeds)
            return dict(zip(self.seeds, runs, strict=True))

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name as the options change it. A control learns nothing, and may not be stopped for it."""
        recipe = resolve(name)
        epochs = self.options.epochs or recipe.epochs
        return replace(recipe, epochs=epochs, guards=replace(recipe.guards, constant_outputs_after_epoch=epochs + 1))


def run_name(name: str, recipe: Recipe, pack_dir: Path, seed: int, starts: Sequence[Path]) -> str:
    """What tells a run from others: its recipe, photos, the weights that it starts from, and the code of ``models``."""
    weights = [hashlib.sha256(best_weights(start).read_bytes()).hexdigest() for start in starts]
    parts = [recipe.digest, (pack_dir / "pack.json").read_text(), *weights, code_digest(ROOT / "models")]
    of = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return f"{name}-{recipe.name}-{of}-{seed}"


def code_digest(package: Path) -> str:
    """SHA-256 over the syntax trees of a package's modules: comments and layout do not count."""
    files = sorted(package.rglob("*.py"))
    trees = [f"{file.relative_to(package)}\n{ast.dump(ast.parse(file.read_bytes()))}" for file in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def scores(arms: Mapping[str, Mapping[int, Path]]) -> dict[str, dict[int, Any]]:
    """The rows of each run's scores.parquet."""
    return {
        arm: {seed: pq.read_table(run / "scores.parquet", partitioning=None) for seed, run in runs.items()}
        for arm, runs in arms.items()
    }


def positive(found: Mapping[str, Any], strength: float, joint: str) -> Iterator[Check]:
    """The figures of a lens that has to be seen, and the joint network against its halves."""
    control = f"lens {strength:g}"
    for figure in found["figures"]:
        least, floor = WANTED.get(figure["name"], (None, None))
        for arm in figure["arms"]:
            wanted, holds = "", None
            if least is not None:
                wanted = f"at least {least:g}, floor above {floor:g}" if least else f"floor above {floor:g}"
                holds = arm["value"] >= least and arm["low"] > floor
            yield Check(control, arm["arm"], figure["label"], cell(arm, figure), wanted, holds)
        for pair in figure["pairs"] if figure["name"] in WANTED else ():
            if pair["second"] == joint:
                gap = f"{pair['value']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}], p {pair['p_holm']:.3g}"
                arms = f"{joint} less {pair['first']}"
                yield Check(control, arms, figure["label"], gap, "not worse", pair["second_is"] != "worse")


def negative(found: Mapping[str, Any], control: str) -> Iterator[Check]:
    """Figures that have to stay at the trivial answer; below that of a coin has been learnt, too."""
    for figure in found["figures"]:
        for arm in figure["arms"]:
            is_judged, is_coin = figure["name"] in WANTED, figure["name"] in COIN
            wanted = ("its baseline in the interval" if is_coin else "not above its baseline") if is_judged else ""
            is_level = not arm["beats_baseline"] and (not is_coin or arm["low"] <= figure["baseline"] <= arm["high"])
            holds = is_level if is_judged else None
            yield Check(control, arm["arm"], figure["label"], cell(arm, figure), wanted, holds)


def shuffled(found: Mapping[str, Any], control: str) -> Iterator[Check]:
    """As ``negative``, but the seeds are the sample, by Student's t.

    A network that was told nonsense still answers by what it sees, and how that agrees with the truth is its own luck.
    """
    for check, figure in zip(negative(found, control), found["figures"], strict=True):
        arm, seeds = figure["arms"][0], len(figure["arms"][0]["by_seed"])
        reach = STUDENT[seeds] * arm["seed_std"] / seeds**0.5
        gap = (arm["value"] - figure["baseline"]) * (1 if figure["better"] == "higher" else -1)
        gap = abs(gap) if figure["name"] in COIN else gap
        measured = f"{check.measured}, over {seeds} seeds ± {reach:.3f}"
        yield replace(check, measured=measured, holds=None if check.holds is None else gap <= reach)


def probed(bench: Bench, strength: float) -> Iterator[Check]:
    """The probes under both protocols."""
    recipe = bench.recipe(bench.options.arms[-1])
    pack_dir = bench.packs(strength, [bench.recipe(name) for name in bench.options.arms])[recipe.pack]
    device = choose_device(bench.options.device)
    for each in (recipe, crop_probes.official(recipe)):
        for probe in crop_probes.probe_pack(pack_dir, each, strength, bench.options.draws, device):
            control = f"lens {strength:g}, {probe.protocol} protocol"
            wanted = {"chance": "0.5 in the interval", "seen": "floor above 0.9", "": ""}[probe.must_be]
            holds = {"chance": probe.auroc.low <= 0.5 <= probe.auroc.high, "seen": probe.auroc.low > 0.9}.get(
                probe.must_be
            )
            measured = f"{interval(probe.auroc)} (0.500), accuracy {interval(probe.accuracy)}"
            yield Check(control, f"{probe.what}, {probe.kind}", "crop or whole, AUROC", measured, wanted, holds)


def interval(value: Estimate) -> str:
    """``0.912 [0.880, 0.941]``."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def cell(arm: Figure, figure: Figure) -> str:
    """``0.912 [0.880, 0.941] ± 0.010 (0.500)``: value, interval, standard deviation over seeds, the trivial answer."""
    spread = "" if arm["seed_std"] is None else f" ± {arm['seed_std']:.3f}"
    return f"{arm['value']:.3f} [{arm['low']:.3f}, {arm['high']:.3f}]{spread} ({figure['baseline']:.3f})"


def checks(bench: Bench) -> Iterator[Check]:
    """All controls, as soon as each is measured."""
    parts = bench.options.parts
    for strength in bench.options.strengths:
        if "arms" in parts:
            found = comparison.compare(scores(bench.arms(strength)))
            control = f"lens {strength:g}"
            yield from positive(found, strength, bench.options.arms[-1]) if strength > 0 else negative(found, control)
        if "probes" in parts:
            yield from probed(bench, strength)
    if "shuffled" in parts:
        strength = max(bench.options.strengths)
        runs = bench.shuffled(strength)
        found = comparison.summarise(scores({"shuffled labels": runs}))
        yield from shuffled(found, f"lens {strength:g}, shuffled labels")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=450, help="photos")
    parser.add_argument("--val", type=int, default=100, help="photos")
    parser.add_argument("--test", type=int, default=300, help="photos")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 0.0], help="of the lens, 0 to 1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the network and its samples")
    parser.add_argument("--arms", nargs="+", default=ARMS, help="recipes; the last one joins the others")
    parser.add_argument("--parts", nargs="+", default=["arms", "shuffled", "probes"], help="which controls")
    parser.add_argument("--scenes", default="fields", choices=("fields", "leaves"), help="leaves: those of the source")
    parser.add_argument("--noise", type=float, default=1.0, help="strength of the sensor's, 0 to 1")
    parser.add_argument("--quality", type=int, default=88, help="of the photo's JPEG; 0: none")
    parser.add_argument("--no-staged", dest="staged", action="store_false", help="train the last arm from nothing")
    parser.add_argument("--epochs", type=int, help="instead of each recipe's")
    parser.add_argument("--draws", type=int, default=8, help="training samples of each photo that probes see")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--jobs", type=int, default=2, help="seeds that are trained beside each other")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--work", type=Path, help="folder that keeps frames and runs")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    options = parser.parse_args(arguments)
    if "shuffled" in options.parts and len(options.seeds) not in STUDENT:
        parser.error(f"shuffled labels are judged by {min(STUDENT)} to {max(STUDENT)} seeds")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table as Markdown; 1 if a control fails."""
    options = parse(arguments)
    counts = {split: getattr(options, split) for split in crop_packs.FIRST_SCENE}
    done = []
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        bench = Bench(work, counts, options.seeds, options)
        print(f"Photos: {counts}. Intervals of 95 % over test photos of the mean over seeds {options.seeds}.\n")
        print("| control | arm | figure | measured (baseline) | wanted | |\n|---|---|---|---|---|---|")
        for check in checks(bench):
            done.append(check)
            print(check.row(), flush=True)
    if options.out:
        options.out.write_text(json.dumps([asdict(check) for check in done], indent=1))
    return int(any(check.holds is False for check in done))


if __name__ == "__main__":
    sys.exit(main())
