"""The run of the demo, in the environment that ``flows/demo.py`` made: the pipeline, and what came of it in print."""

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.pipeline import PipelineResult, pipeline
from tasks.dataset import Dataset
from tasks.errors import DarkroomError
from tasks.stopping import STOPPING

RECIPE = "crops_thumbnail_narrow"
TERMS = (
    "Travel", "Tourism", "Summer", "Street", "Sport", "Protest", "Portrait", "Photography", "Park", "Outside", "Online",
    "News", "Mountains", "Morning", "Military", "Life", "Landscape", "International", "Horizon", "Demonstration",
    "Celebrity", "Boat", "Beach",
)  # fmt: skip
DATASET: dict[str, Any] = {
    "name": "demo",
    "source": "flickr",
    # Windows that ended long ago: asked once, cached for ever.
    "queries": [{"text": term, "uploaded_before": "2026-01-01T00:00:00+00:00"} for term in TERMS],
}
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
OUT = Console(highlight=False, width=100)


def main() -> int:
    """Run, and print the outcome; the exit code."""
    signal.signal(signal.SIGINT, interrupt)
    began = time.monotonic()
    try:
        result = pipeline(Dataset.model_validate(DATASET), RECIPE)
    except DarkroomError as error:
        OUT.print(f"{type(error).__name__}: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        OUT.print("Interrupted: what is done is kept, and the next run goes on from there.", style="red")
        return INTERRUPTED
    show(result)
    OUT.print(f"\nDone in {time.monotonic() - began:.0f} s beyond the server's start.")
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C. Downloads end even if the exception meets code that swallows it, a destructor for one."""
    STOPPING.set()
    raise KeyboardInterrupt


def show(result: PipelineResult) -> None:
    """Print where things lie, the counts, and the figures beside their baselines."""
    snapshot, run = result.snapshot, result.run
    card = json.loads(Path(snapshot.uri, "snapshot.json").read_text(encoding="utf-8"))
    OUT.print(f"\n[bold]Snapshot[/bold]  {snapshot.uri}  (version {snapshot.version})")
    OUT.print("  " + "   ".join(f"{split} {photos:,}" for split, photos in card["counts"].items()))
    for reason, photos in card["reasons"].items():
        OUT.print(f"    {reason:<28} {photos:>5,}")
    OUT.print(f"\n[bold]Model[/bold]  {run.uri}  ({RECIPE})\n")
    table = Table("on the test photos", "value", "95 % interval", "baseline", "better?", box=None)
    for figure in run.figures:
        interval = f"{figure.low:.3f} to {figure.high:.3f}"
        better = "yes" if figure.beats_baseline else "no"
        table.add_row(figure.label, f"{figure.value:.3f}", interval, f"{figure.baseline:.3f}", better)
    OUT.print(table)
    OUT.print(f"\n[bold]Report[/bold]  {run.uri}/report.html")


if __name__ == "__main__":
    sys.exit(main())
