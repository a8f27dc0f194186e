"""One process at a time in the folder of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from train_cases import BATCH, STUDENT, config

import cli
from logitstore.errors import InputError, NonFiniteError
from logitstore.learning.folder import RunFolder
from logitstore.train import train

SMALL = ["--student", STUDENT, "--epochs", 1, "--batch-size", BATCH, "--workers", 1, "--no-tensorboard"]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


HOLD = """
import sys, time
from pathlib import Path
from logitstore.learning.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), {}, {})
folder.load(fresh=False)
folder.begin(anew=True)
print("held", flush=True)
time.sleep(60)
"""


class TestOneProcessAFolder:
    """The lock that two runs with one --out meet, with a real second process."""

    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "run")], cwd=Path(__file__).parent.parent,
            env=os.environ.copy(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def test_the_second_is_refused_and_the_lock_dies_with_the_first(
        self, holder: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        arguments = [*SMALL, "--hard-labels-only", "--subset", BATCH, "--out", tmp_path / "run"]
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
        for extra in ([], ["--fresh"]):
            result = command(*arguments, *extra)
            assert result.exit_code == 2
            assert f"Another process is training in {tmp_path / 'run'}: wait until it ends" in result.stderr
            assert len(result.stderr.splitlines()) == 1
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert command(*arguments).exit_code == 0

    @pytest.mark.parametrize(("file", "is_what"), [("zarr.json", "is a store"), ("pack.json", "holds packed images")])
    def test_what_holds_something_else_is_no_folder_for_a_run(self, tmp_path: Path, file: str, is_what: str) -> None:
        (tmp_path / file).write_text("{}")
        with pytest.raises(InputError, match=rf"{is_what}, and a run needs a folder of its own: .* --out\."):
            RunFolder(tmp_path, {}, {}).load(fresh=True)

    def test_a_run_that_failed_lets_go(self, tmp_path: Path) -> None:
        options = {"hard_labels_only": True, "subset": 2 * BATCH, "ema_decay": None}
        with pytest.raises(NonFiniteError):
            train(config(tmp_path / "run", **options, base_lr=1e30, warmup_epochs=0.0))
        assert train(config(tmp_path / "run", **options)).steps == 4

    def test_what_another_process_did_in_between_is_noticed(self, tmp_path: Path) -> None:
        late, quick = (RunFolder(tmp_path / "run", {}, {}) for _ in range(2))
        assert late.load(fresh=False) is None
        quick.begin(anew=True)
        with pytest.raises(InputError, match="Another process is training in"):
            late.begin(anew=True)
        time.sleep(0.01)
        quick.save({"step": 1})
        quick.close()
        with pytest.raises(InputError, match=r"Another process has trained in .* just now: run the command again"):
            late.begin(anew=True)
        late.close()
