"""Steps of a protocol: done once, gone on with, refused where they are others, stopped in time, several at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from framework_cases import ROOT, wait_for

from benchmarks.framework.launch import Step, Terms
from benchmarks.framework.steps import StepError, StepFolder
from logitstore.errors import InputError, MismatchError


class FakeLaunch:
    """Gives what it is told to, and remembers what was run."""

    def __init__(self, *outcomes: tuple[int, str]) -> None:
        self.outcomes = list(outcomes)
        self.ran: list[str] = []

    def __call__(self, step: Step, terms: Terms) -> tuple[int, str]:
        self.ran.append(step.name)
        return self.outcomes.pop(0)


ONE, TWO = Step(name="one", words=("train", "--seed", "1")), Step(name="two", words=("train", "--seed", "2"))


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    launch = FakeLaunch((0, '{"top1": 0.5}'), (0, '{"top1": 0.25}'))
    with StepFolder(tmp_path, launch) as folder:
        assert folder.run(ONE, None) == {"top1": 0.5}
    with StepFolder(tmp_path, launch) as folder:
        assert [folder.run(step, None) for step in (ONE, TWO)] == [{"top1": 0.5}, {"top1": 0.25}]
    assert launch.ran == ["one", "two"]
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["command"] == "logitstore train --seed 1"


def test_what_only_an_unfinished_step_needs_is_removed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    step = Step(name="one", words=("train",), leavings=(checkpoint,))
    checkpoint.touch()
    with StepFolder(tmp_path, FakeLaunch((143, ""), (0, "{}"))) as folder:
        assert folder.run(step, None) is None and checkpoint.exists()
        assert folder.run(step, None) == {} and not checkpoint.exists()


@pytest.mark.parametrize(("code", "message"), [(2, "exit code 2"), (-9, "killed by signal 9")])
def test_a_step_that_fails_ends_the_run_and_can_be_repeated(tmp_path: Path, code: int, message: str) -> None:
    with StepFolder(tmp_path, FakeLaunch((code, ""), (0, "{}"))) as folder:
        with pytest.raises(StepError, match=f"step one .*{message}"):
            folder.run(ONE, None)
        assert folder.run(ONE, None) == {}


def test_a_command_that_was_refused_leaves_its_place_to_another(tmp_path: Path) -> None:
    mended = Step(name="one", words=("train", "--seed", "7"))
    with StepFolder(tmp_path, FakeLaunch((2, ""), (0, "{}"))) as folder:
        with pytest.raises(StepError, match="exit code 2"):
            folder.run(ONE, None)
        folder.check([mended], {})
        assert folder.run(mended, None) == {}


def test_a_store_that_others_are_still_making_is_not_done(tmp_path: Path) -> None:
    outcome = json.dumps({"complete": False, "in_progress": ["epoch 0, shard 1: process 7 on there"]})
    with StepFolder(tmp_path, FakeLaunch((0, outcome))) as folder, pytest.raises(StepError, match="process 7"):
        folder.run(ONE, None)


def test_no_step_begins_when_the_time_is_up(tmp_path: Path) -> None:
    launch = FakeLaunch()
    with StepFolder(tmp_path, launch) as folder:
        assert folder.run(ONE, time.monotonic()) is None
    assert launch.ran == []


class Meeting:
    """Commands that wait for each other: none ends before so many run at the same time."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=30)
        self.ended: list[str] = []

    def __call__(self, step: Step, terms: Terms) -> tuple[int, str]:
        self.barrier.wait()
        self.ended.append(step.name)
        return 0, "{}"


def test_steps_run_at_the_same_time_when_what_they_need_is_done(tmp_path: Path) -> None:
    first, second = Step(name="a", words=()), Step(name="b", words=())
    third, fourth = Step(name="c", words=(), needs=("a", "b")), Step(name="d", words=(), needs=("a",))
    meeting = Meeting(2)
    with StepFolder(tmp_path, meeting) as folder:
        folder.run_all([first, second, third, fourth], None, jobs=2)
    assert set(meeting.ended[:2]) == {"a", "b"} and set(meeting.ended[2:]) == {"c", "d"}


def test_a_step_that_fails_stops_the_others(tmp_path: Path) -> None:
    def launch(step: Step, terms: Terms) -> tuple[int, str]:
        if step.name == "one":
            return 2, ""
        assert terms.stopping.wait(30)
        return 143, ""

    with StepFolder(tmp_path, launch) as folder:
        with pytest.raises(StepError, match="step one"):
            folder.run_all([TWO, ONE, Step(name="three", words=())], None, jobs=2)
        assert folder.record(TWO) is not None and folder.result(TWO) is None
        assert folder.record(Step(name="three", words=())) is None


def test_no_step_begins_after_one_that_had_no_time(tmp_path: Path) -> None:
    both, ran = threading.Barrier(2, timeout=30), []

    def launch(step: Step, terms: Terms) -> tuple[int, str]:
        ran.append(step.name)
        both.wait()
        time.sleep(0.2 if step.name == "two" else 0)  # still runs when the other has ended
        return 143, ""

    with StepFolder(tmp_path, launch) as folder:
        folder.run_all([ONE, TWO, *(Step(name=name, words=()) for name in "abcd")], None, jobs=2)
    assert sorted(ran) == ["one", "two"]


def test_another_command_in_the_folder_is_refused_with_both(tmp_path: Path) -> None:
    other = Step(name="one", words=("train", "--seed", "7"))
    with StepFolder(tmp_path, FakeLaunch((143, ""))) as folder:
        folder.run(ONE, None)
        folder.check([ONE, TWO], {})
        with pytest.raises(MismatchError, match="step one") as refused:
            folder.check([TWO, other], {})
    assert refused.value.stored == "logitstore train --seed 1"
    assert refused.value.present == "logitstore train --seed 7"


def test_other_data_under_the_same_name_is_refused(tmp_path: Path) -> None:
    with StepFolder(tmp_path) as folder:
        folder.check([], {"--data": "2 images of a"})
        folder.check([], {"--data": "2 images of a", "--pretrain-data": "3 images of b"})
        with pytest.raises(MismatchError, match="--data") as refused:
            folder.check([], {"--data": "2 images of c"})
    assert (refused.value.stored, refused.value.present) == ("2 images of a", "2 images of c")


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.framework.launch._WAIT_FOR_LOCK", 0.0)
    with StepFolder(tmp_path), pytest.raises(InputError, match="Another run works"), StepFolder(tmp_path):
        pass
    with StepFolder(tmp_path):
        pass


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Step]:
    """Makes steps whose command is a small program: it waits, and says in a file that it was asked to stop."""
    (tmp_path / "patient_worker.py").write_text(
        "import pathlib, signal, sys, time\n"
        "folder, seconds, code = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])\n"
        "def stop(*_):\n    (folder / 'asked').touch()\n    time.sleep(0.3)\n"
        "    (folder / 'saved').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "(folder / 'began').touch()\n"
        "time.sleep(seconds)\n"
        "print('{\"top1\": 1}' if code == 0 else '')\n"
        "sys.exit(code)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(seconds: float, code: int = 0) -> Step:
        return Step(name="work", words=(str(tmp_path), str(seconds), str(code)), module="patient_worker")

    return make


def test_a_command_in_a_process_gives_its_result_or_its_exit_code(tmp_path: Path, worker: Callable[..., Step]) -> None:
    with StepFolder(tmp_path) as folder:
        with pytest.raises(StepError, match="exit code 5"):
            folder.run(worker(0, code=5), None)
        assert folder.run(worker(0), time.monotonic() + 60) == {"top1": 1}


def test_a_command_may_save_what_it_has_when_the_time_is_up(tmp_path: Path, worker: Callable[..., Step]) -> None:
    with StepFolder(tmp_path) as folder:
        assert folder.run(worker(60), time.monotonic() + 1) is None
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_with_the_run_and_is_waited_for(
    tmp_path: Path, worker: Callable[..., Step], how: signal.Signals
) -> None:
    step = worker(60)
    code = (
        "import sys; from pathlib import Path\n"
        "from benchmarks.framework.launch import Step, sigterm_unwinds\n"
        "from benchmarks.framework.steps import StepFolder\n"
        f"with sigterm_unwinds(), StepFolder(Path({str(tmp_path)!r})) as folder:\n"
        f"    folder.run_all([Step(name='work', words={step.words!r}, module='patient_worker')], None)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})  # fmt: skip
    wait_for(tmp_path / "began", run)
    run.send_signal(how)
    run.communicate()
    with StepFolder(tmp_path):  # waits for what the other left behind
        assert (tmp_path / "saved").exists()
    assert run.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: -2}[how]
