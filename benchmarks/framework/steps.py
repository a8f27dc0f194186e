"""Named steps in a folder: each a command in a process of its own, done once, gone on with after any interruption.

What is known of a step lies in ``steps/NAME.json``: its exact command, how long it has taken so far, and its result
once it is done. A step of another command under the same name is refused with both commands. The commands themselves
resume; here is only decided what is left to do, and when to stop.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

from benchmarks.framework.launch import Launch, Step, Terms, in_a_process, locked
from logitstore.cards import write_atomically
from logitstore.errors import LogitStoreError, MismatchError

_REFUSED = LogitStoreError.exit_code
_STOPPED = {128 + signal.SIGTERM, -signal.SIGTERM}  # the second: before the command could handle it

Result = dict[str, Any]


class StepError(LogitStoreError):
    """A step's command failed; its own sentence stands before this one."""


class StepFolder:
    """The records of all steps, and the lock that keeps a second call out.

    Args:
        path: the run's folder; made when it is entered.
        launch: how a command is run; a process of its own unless a test says otherwise.
    """

    def __init__(self, path: Path, launch: Launch | None = None) -> None:
        self.path = path
        self._launch = launch or in_a_process
        self._lock: IO[str] | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> StepFolder:
        (self.path / "steps").mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.path / "lock")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        self._lock.close()

    def check(self, steps: Sequence[Step], inputs: Mapping[str, object]) -> None:
        """Refuse a folder that was begun with other commands or other data, before anything is run.

        Args:
            steps: all of the protocol.
            inputs: what the data sets and the given weights are, by name.

        Raises:
            MismatchError: either differs; both sides are shown.
        """
        remedy = "Give it a folder of its own with --out, or repeat the command that began this one."
        for step in steps:
            if (record := self.record(step)) and record["command"] != step.command:
                raise MismatchError(
                    f"The command of the step {step.name} in {self.path}",
                    stored=record["command"],
                    present=step.command,
                    remedy=remedy,
                )
        file = self.path / "inputs.json"
        stored = json.loads(file.read_text()) if file.exists() else {}
        for name, value in inputs.items():
            if name in stored and stored[name] != value:
                what = f"What {name} holds, in the run in {self.path},"
                raise MismatchError(what, stored=stored[name], present=value, remedy=remedy)
        _write(file, {**stored, **inputs})

    def record(self, step: Step) -> Result | None:
        """What is known of a step; None before it was begun."""
        path = self._file(step)
        record: Result | None = json.loads(path.read_text()) if path.exists() else None
        return record

    def result(self, step: Step) -> Result | None:
        """What a finished step printed; None before."""
        record = self.record(step)
        result: Result | None = record["result"] if record else None
        return result

    def run_all(self, steps: Sequence[Step], deadline: float | None, jobs: int = 1) -> None:
        """Do what is left to do of some steps, in their order as far as what they need is done, until the time is up.

        Args:
            steps: each after those that it needs.
            deadline: as for ``run``.
            jobs: how many commands may run at the same time. Changes no result.

        Raises:
            StepError: a command failed. The others are stopped, with what they have done saved.
        """
        left = {step.name: step for step in steps}
        running: dict[Future[Result | None], str] = {}
        with ThreadPoolExecutor(jobs, thread_name_prefix="step") as pool:
            try:
                while True:
                    ready = [step for step in left.values() if not any(name in left for name in step.needs)]
                    free = [step for step in ready if step.name not in running.values()]
                    for step in free[: max(0, jobs - len(running))]:
                        running[pool.submit(self.run, step, deadline)] = step.name
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name = running.pop(future)
                        if future.result() is None:
                            jobs = 0  # the time is up: the others end, too, and none begins
                        else:
                            del left[name]
            except BaseException:
                self._stopping.set()  # leaving the pool waits for the commands
                raise

    def run(self, step: Step, deadline: float | None) -> Result | None:
        """The result of a step: at once where it is done, else its command is run or gone on with.

        Args:
            step: what to do.
            deadline: when to stop, on the clock of ``time.monotonic``; None is never.

        Returns:
            what it printed; None where the time was up before it was done.

        Raises:
            StepError: the command failed.
        """
        record = self.record(step)
        is_new = record is None
        record = record or {"step": step.name, "command": step.command, "seconds": 0.0, "result": None}
        if record["result"] is not None:
            self._tidy(step)
            return self.result(step)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        _write(self._file(step), record)
        print(f"\n$ {step.command}", flush=True)
        assert self._lock is not None
        began = time.monotonic()
        code, output = self._launch(step, Terms(seconds=left, stopping=self._stopping, lock=self._lock))
        record["seconds"] += time.monotonic() - began
        if code == 0:
            record["result"] = _whole(step, json.loads(output))
        _write(self._file(step), record)
        if code == _REFUSED and is_new:
            self._file(step).unlink()  # nothing was begun, so another command may take its place
        if code not in {0, *_STOPPED}:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise StepError(f"The step {step.name} {how}; mend what it says above, and the same command goes on.")
        if code == 0:
            self._tidy(step)
        return self.result(step)

    def seconds(self, steps: Sequence[Step]) -> float:
        """What steps have taken so far, over all calls; a part that was killed is not counted."""
        return sum(float(record["seconds"]) for step in steps if (record := self.record(step)))

    def _file(self, step: Step) -> Path:
        return self.path / "steps" / f"{step.name}.json"

    def _tidy(self, step: Step) -> None:
        for path in step.leavings:
            path.unlink(missing_ok=True)


def _whole(step: Step, result: Result) -> Result:
    if result.get("complete") is False:
        held = ", ".join(result.get("in_progress", ()))
        raise StepError(f"The step {step.name} left shards to other processes ({held}): wait for them, then go on.")
    return result


def _write(path: Path, values: Mapping[str, object]) -> None:
    text = json.dumps(values, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
