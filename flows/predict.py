"""Ask a trained model about a person's own photos; a table, a picture of each answer and a page come out.

Run: ``prefect deployment run 'predict-photos/any' --param photos=/my/photos --param run=0123456789abcdef``, or
``predict_photos("/my/photos", run="0123456789abcdef")`` from Python. ``run`` may be left out: the newest one that
was evaluated.
"""

import socket
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one
from flows.train import weights_of
from storage.layout import layout
from storage.records import PredictionRef
from tasks.errors import ConfigError
from tasks.predict import file_of, listed, predict, rotate_of

RUNNER: Any = ThreadPoolTaskRunner(max_workers=1)  # Any: Prefect types its own runners as none of its runners
Run = Annotated[str | None, Field(description="Id of a finished run; none: the newest one that was evaluated.")]


@flow(name="predict-photos", flow_run_name="predict {photos}", task_runner=RUNNER)
def predict_photos(photos: str, run: Run = None) -> PredictionRef:
    """What the model of ``run`` says of ``photos``, a file or a folder; they stay where they are."""
    where = layout()
    where.check_writable()
    run_id = run or newest_run()
    weights = weights_of(run_id)
    folder, files = listed(Path(photos))
    evaluation, rotate = file_of(where, run_id, "evaluation.json"), rotate_of(where, run_id)
    title = f"{Path(photos).name or photos}, seen by {run_id}"
    with only_one(f"training-{socket.gethostname()}"):
        found = one("predict", predict.submit(str(folder), files, run_id, weights, evaluation, rotate, title))
    uri = str(where.prediction(found.digest))
    result = PredictionRef(run_id=run_id, uri=uri, photos=found.photos, unreadable=found.unreadable)
    artifacts.show_prediction(result, where.root / found.page.path)
    return result


def newest_run() -> str:
    """The id of the evaluated run whose training ended last; raises ConfigError if there is none."""
    runs = layout().run("any").parent
    ended = [  # when a run saved last: a card is touched each time that its result is used again
        (index.stat().st_mtime_ns, run.name)
        for run in runs.glob("*")
        if (index := run / "checkpoint" / "index.json").is_file()
        and all((run / name).is_file() for name in ("train.json", "evaluation.json"))
    ]
    if not ended:
        raise ConfigError(f"no run in {str(runs)!r} is finished and evaluated: train a model first, or name a run")
    return max(ended)[1]
