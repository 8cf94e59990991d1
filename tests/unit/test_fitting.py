"""Following, ending and understanding the training process, with a stand-in for models.fit that obeys a script."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models.errors
from tasks import errors, fitting

Act = Callable[..., list[dict[str, Any]]]
STAND_IN = """
import json, os, pathlib, signal, sys, time
request = json.loads(pathlib.Path(sys.argv[1]).read_text())
run_dir = pathlib.Path(request["run_dir"])
def event(name, end="\\n", **values):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": name, **values}) + end)
def error(kind, message, code, **fields):
    (run_dir / "error.json").write_text(json.dumps({"type": kind, "message": message, "fields": fields}))
    sys.exit(code)
"""


@pytest.fixture
def act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Runs a job whose process does what the text says; returns the events that were followed."""
    monkeypatch.setattr(fitting, "POLL_S", 0.01)
    package = tmp_path / "stand-in" / "models"
    package.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)  # ``-m`` looks there first

    def run(program: str, **request: Any) -> list[dict[str, Any]]:
        (package / "fit.py").write_text(STAND_IN + program)
        followed: list[dict[str, Any]] = []
        fitting.run_fit("train", tmp_path, {"pack_dir": str(tmp_path / "pack"), **request}, followed.append)
        return followed

    return run


def ended(pid: int) -> bool:
    """Whether no process has that id any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_event_is_followed_once(act: Act) -> None:
    """Lines are handed on in order as they come, also those written just before the end."""
    found = act("event('start')\ntime.sleep(0.1)\nevent('epoch', epoch=1)\nevent('end')")
    assert [line["event"] for line in found] == ["start", "epoch", "end"]
    assert found[1]["epoch"] == 1


def test_events_of_an_earlier_try_are_not_followed_again(act: Act, tmp_path: Path) -> None:
    """A resumed run follows what is new, also if the child first cuts off a line that a killed try left torn."""
    whole = '{"event": "epoch", "epoch": 1}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + '{"event": "epoch", "epoch": 2, "loss": 0.1234567')
    program = f"os.truncate(run_dir / 'metrics.jsonl', {len(whole)})\n"
    assert act(f"{program}event('start', epoch=1)\nevent('end')") == [{"event": "start", "epoch": 1}, {"event": "end"}]


def test_a_line_that_is_glued_to_a_torn_one_ends_nothing(act: Act, tmp_path: Path) -> None:
    """What does not parse is passed over, and what comes behind it followed."""
    (tmp_path / "metrics.jsonl").write_text('{"event": "epoch", "epoch": 1}\n{"event": "epo')
    assert act("event('start')\nevent('end')") == [{"event": "end"}]


def test_a_torn_last_line_is_not_parsed(act: Act) -> None:
    """Half a line is no event: neither while it is being written, nor when the process dies over it."""
    assert act("event('start')\nevent('epoch', end='')") == [{"event": "start"}]


def test_a_line_that_comes_in_two_parts_is_one_event(act: Act) -> None:
    """A slow disk does not divide an event."""
    found = act(
        "file = (run_dir / 'metrics.jsonl').open('a', buffering=1)\nfile.write('{\"event\": ')\nfile.flush()\n"
        "time.sleep(0.1)\nfile.write('\"start\"}\\n')\nfile.close()"
    )
    assert found == [{"event": "start"}]


def test_the_process_is_told_everything(act: Act, tmp_path: Path) -> None:
    """RUN.json has the job, the folder, the machine's settings, and what was asked; it stays for whoever looks."""
    assert act("event('asked', **request)", run_id="r", seed=3)[0] == {
        "event": "asked", "job": "train", "run_dir": str(tmp_path), "device": "auto", "threads": None,
        "run_id": "r", "seed": 3, "pack_dir": str(tmp_path / "pack"),
    }  # fmt: skip
    assert json.loads((tmp_path / "train.run.json").read_text())["seed"] == 3


@pytest.mark.parametrize(
    ("kind", "fields", "expected", "facts"),
    [
        ("TrainingDiverged", {"step": 7}, errors.TrainingDiverged, {"step": 7}),
        ("OutOfMemory", {"batch_size": 64}, errors.OutOfMemory, {"batch_size": 64}),
        ("ConstantOutputs", {}, errors.ConstantOutputs, {}),
        ("ConfigError", {"key": "epochs"}, errors.ConfigError, {}),
        ("DeviceMissing", {}, errors.ConfigError, {}),
        ("PackDamaged", {}, errors.PackDamaged, {}),
        ("CheckpointMismatch", {}, errors.TrainingError, {}),
        ("SomethingNew", {}, errors.TrainingError, {}),
    ],
)
def test_every_error_of_the_process_comes_back_as_one_of_ours(
    act: Act, kind: str, fields: dict[str, Any], expected: type[Exception], facts: dict[str, Any]
) -> None:
    """Class, message and facts pass from error.json into the flow."""
    with pytest.raises(expected, match="what to do") as caught:
        act(f"error({kind!r}, 'what to do', 9, **{fields!r})")
    assert type(caught.value) is expected
    assert {name: getattr(caught.value, name) for name in facts} == facts


def test_a_damaged_pack_is_made_again_by_the_next_run(act: Act, tmp_path: Path) -> None:
    """Its card goes, so that its cached result no longer counts."""
    card = tmp_path / "pack" / "pack.json"
    card.parent.mkdir()
    card.write_text("{}")
    with pytest.raises(errors.PackDamaged):
        act("error('PackDamaged', 'pack again', 3)")
    assert not card.exists()


def test_every_error_of_models_is_understood() -> None:
    """None of the errors that models.fit knows is unknown here."""
    known = {found.__name__ for found in models.errors.FitError.__subclasses__()}
    assert known == {
        "ConfigError", "PackDamaged", "CheckpointMismatch", "DeviceMissing", "OutOfMemory", "TrainingDiverged",
        "ConstantOutputs", "DiskFull", "CheckpointDamaged", "ExportMismatch",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (2, errors.ConfigError), (3, errors.PackDamaged), (4, errors.TrainingError), (6, errors.OutOfMemory),
        (7, errors.TrainingDiverged), (8, errors.ConstantOutputs), (9, errors.DiskFull),
    ],
)  # fmt: skip
def test_a_process_that_could_write_nothing_is_understood_by_its_status(
    act: Act, code: int, expected: type[Exception]
) -> None:
    """On a full disk there is no error.json, and perhaps no log."""
    with pytest.raises(expected) as caught:
        act(f"sys.exit({code})")
    assert type(caught.value) is expected
    assert len(str(caught.value)) > 20
    kind = next(each for each in models.errors.FitError.__subclasses__() if each.exit_code == code)
    with pytest.raises(expected, match=r"^make room$"):
        act(f"sys.stderr.write('a warning\\n{kind.__name__}: make room\\n')\nsys.exit({code})")


def test_a_stop_that_comes_before_the_process_is_not_lost(act: Act, tmp_path: Path) -> None:
    """Whoever gives up while the training is being prepared ends it; the next one is not ended."""
    fitting.STOPPING.add(tmp_path)
    with pytest.raises(errors.TrainingError):
        act("time.sleep(60)")
    assert act("event('end')") == [{"event": "end"}]
    fitting.STOPPING.add(tmp_path / "another")
    assert act("event('end')") == [{"event": "end"}]
    fitting.STOPPING.clear()


def test_what_a_launcher_says_of_this_process_is_not_handed_on(act: Act, environment: Callable[..., None]) -> None:
    """The child of one process of several would wait for the others for ever."""
    environment(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", MASTER_ADDR="x", MASTER_PORT="1", TORCHELASTIC_RUN_ID="x")
    (found,) = act("event('asked', names=sorted(os.environ))")
    assert not [name for name in found["names"] if name.startswith(fitting.LAUNCHER)]
    assert "PATH" in found["names"]


def test_an_error_of_an_earlier_try_is_forgotten(act: Act, tmp_path: Path) -> None:
    """A process that dies without a word is not blamed for what the one before it said."""
    (tmp_path / "error.json").write_text(json.dumps({"type": "OutOfMemory", "message": "old"}))
    with pytest.raises(errors.TrainingError, match=r"exit status 55; it said nothing: .*train\.log"):
        act("sys.exit(55)")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_named_by_its_signal(act: Act, number: signal.Signals) -> None:
    """Whoever was killed, as by a machine without memory, says nothing itself."""
    with pytest.raises(errors.TrainingError, match=f"{number.name}.*log"):
        act(f"os.kill(os.getpid(), {int(number)})")


def test_a_process_that_was_stopped_says_how_to_go_on(act: Act) -> None:
    """An end on request is no riddle."""
    with pytest.raises(errors.TrainingError, match="checkpoint saved: run again"):
        act("sys.exit(143)")


def test_an_impossible_device_is_named(tmp_path: Path, environment: Callable[..., None]) -> None:
    """The real process refuses it before it knows where to leave an error; its words come through all the same."""
    environment(DARKROOM_DEVICE="gpu")
    with pytest.raises(errors.ConfigError, match="device cannot be 'gpu': choose one of auto, cpu, cuda"):
        fitting.run_fit("train", tmp_path, {"run_id": "r", "pack_dir": "p", "recipe": "r", "seed": 0}, print)


def test_what_the_process_prints_is_kept(act: Act, tmp_path: Path) -> None:
    """Its output and its traceback are in the log that the error names."""
    with pytest.raises(errors.TrainingError):
        act("print('hello', flush=True)\nraise RuntimeError('a fault of the program')")
    log = (tmp_path / "train.log").read_text()
    assert "hello" in log
    assert "a fault of the program" in log


def test_the_process_ends_with_its_caller(act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller raises, the process gets SIGTERM, and time to save; then the caller's error goes on."""

    def refuse(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt(event["pid"])

    (tmp_path / "stand-in" / "models" / "fit.py").write_text(
        STAND_IN + "def save(*_):\n    (run_dir / 'saved').write_text('')\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nevent('start', pid=os.getpid())\ntime.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt) as caught:
        fitting.run_fit("train", tmp_path, {}, refuse)
    assert ended(int(caught.value.args[0]))
    assert (tmp_path / "saved").exists()


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its grace."""
    monkeypatch.setattr(fitting, "GRACE_S", 0.2)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    began = time.monotonic()
    fitting.end(child)
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 30
    fitting.end(child)
