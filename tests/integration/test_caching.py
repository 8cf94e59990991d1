"""The cache policy under a real Prefect server: each trap of the built-in policies that could hit us."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Task, flow, task

from storage import manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from tasks import caching
from tasks.errors import SourceUnavailable

pytestmark = pytest.mark.usefixtures("prefect_server")
Ran = Callable[..., str]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that the stage "probe" declares as its code; ``probe_twin`` is another stage with the same code."""
    file = tmp_path / "probe_helper.py"
    file.write_text("def reason():\n    return 'too_small'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for stage in ("probe", "probe_twin", "probe_after"):
        monkeypatch.setitem(caching.CODE, stage, caching.Code(("probe_helper",)))
    yield file
    sys.modules.pop("probe_helper", None)


def write(photo_id: str) -> ManifestRef:
    return manifest.write_rows(layout(), "filter", [{"source": "t", "photo_id": photo_id}])


def stage_task(stage: str, **options: Any) -> Task[[Any], ManifestRef]:
    @task(**caching.stage(stage, **options))
    def probe(value: Any) -> ManifestRef:
        return write(f"{stage}-{value.sha256 if isinstance(value, ManifestRef) else value}")

    return probe


def ran(probe: Task[[Any], ManifestRef], *values: Any) -> list[tuple[str, ManifestRef]]:
    """The state name and result of ``probe`` for each value, called in one flow run."""

    @flow
    def calls() -> list[tuple[str, ManifestRef]]:
        states = [probe(value, return_state=True) for value in values]
        return [(state.name, state.result()) for state in states]

    return calls()


def test_the_same_inputs_in_another_flow_run_are_cached(helper: Path) -> None:
    """A key knows no flow run, no process and no time."""
    probe = stage_task("probe")
    assert [name for name, _ in ran(probe, f"{helper}-same")] == ["Completed"]
    assert [name for name, _ in ran(probe, f"{helper}-same")] == ["Cached"]


def test_two_stages_with_the_same_inputs_do_not_share_a_result(helper: Path) -> None:
    """Prefect's INPUTS alone would hand the result of one stage to the other."""
    [(_, first)] = ran(stage_task("probe"), f"{helper}-two")
    [(name, second)] = ran(stage_task("probe_twin"), f"{helper}-two")
    assert name == "Completed"
    assert first != second


def test_a_changed_helper_runs_the_stage_again(helper: Path) -> None:
    """Prefect's TASK_SOURCE sees only the task's own text, not what it calls."""
    probe = stage_task("probe")
    ran(probe, f"{helper}-code")
    helper.write_text("def reason():\n    return 'wrong_aspect'\n")
    assert [name for name, _ in ran(probe, f"{helper}-code")] == ["Cached"], "this process still runs the old code"
    assert [name for name, _ in ran(stage_task("probe"), f"{helper}-code")] == ["Completed"], "the next one does not"


def test_a_comment_or_docstring_runs_nothing_again(helper: Path) -> None:
    """Only what can change the output counts."""
    probe = stage_task("probe")
    ran(probe, f"{helper}-comment")
    helper.write_text('"""Words."""\n\n\ndef reason():  # more words\n    """Why."""\n    return "too_small"\n')
    assert [name for name, _ in ran(stage_task("probe"), f"{helper}-comment")] == ["Cached"]


def test_changed_retries_run_nothing_again(helper: Path) -> None:
    """How often a task is tried says nothing about its output."""
    ran(stage_task("probe"), f"{helper}-retries")
    assert [name for name, _ in ran(stage_task("probe", retries=7), f"{helper}-retries")] == ["Cached"]


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_a_harmed_output_is_made_again_and_what_follows_stays_cached(helper: Path, root: Layout, harm: str) -> None:
    """Only the task whose file is gone or damaged runs; the same digest keeps the next stage cached."""
    probe, after = stage_task("probe"), stage_task("probe_after")
    [(_, ref)] = ran(probe, f"{helper}-{harm}")
    ran(after, ref)
    file = root.stage("filter", ref.sha256)
    data = bytearray(file.read_bytes())
    if harm == "delete":
        file.unlink()
    elif harm == "truncate":
        file.write_bytes(data[:-7])
    else:
        data[9] ^= 1
        file.write_bytes(data)
    [(name, again)] = ran(probe, f"{helper}-{harm}")
    assert (name, again) == ("Completed", ref)
    assert [state for state, _ in ran(after, again)] == ["Cached"]
    assert [state for state, _ in ran(probe, f"{helper}-{harm}")] == ["Cached"]


def test_only_the_changed_input_runs(helper: Path) -> None:
    """Among many shards, the new one runs and the others are cached."""
    probe = stage_task("probe")
    ran(probe, f"{helper}-a", f"{helper}-b")
    assert [name for name, _ in ran(probe, f"{helper}-a", f"{helper}-c", f"{helper}-b")] == [
        "Cached",
        "Completed",
        "Cached",
    ]


def test_a_transient_error_is_tried_again_and_others_are_not(helper: Path) -> None:
    """Retries follow the class of the error."""
    tries = {"transient": 0, "other": 0}

    @task(**caching.stage("probe", retry_delay_seconds=0))
    def flaky(value: str) -> ManifestRef:
        tries["transient"] += 1
        if tries["transient"] == 1:
            raise SourceUnavailable("not now")
        return write(value)

    @task(**caching.stage("probe_twin", retry_delay_seconds=0))
    def broken(value: str) -> ManifestRef:
        tries["other"] += 1
        raise ValueError("never")

    @flow
    def calls() -> None:
        flaky(f"{helper}-flaky")
        broken(f"{helper}-broken", return_state=True)

    calls()
    assert tries == {"transient": 2, "other": 1}


def test_a_failed_task_is_not_kept(helper: Path) -> None:
    """An error is never served from the cache."""
    fails = [True]

    @task(**caching.stage("probe"))
    def once(value: str) -> ManifestRef:
        if fails.pop() if fails else False:
            raise ValueError("first time")
        return write(value)

    @flow
    def call() -> str:
        state = once(f"{helper}-once", return_state=True)
        return str(state.name)

    assert [call(), call()] == ["Failed", "Completed"]
