"""Several processes are told to stop, fail or are killed: what they leave resumes with any number, and none hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import write_images
from rank_cases import LIMIT_S, TESTS, RankServer
from train_cases import STUDENT, metrics, same_weights

import cli
from logitstore.pcg import VisitOrder

COMMON = (
    "train", "--hard-labels-only", "--epochs", 2, "--workers", 1, "--no-tensorboard", "--log-steps", 1,
    "--dtype", "float32", "--device", "cpu", "--checkpoint-steps", 1,
)  # fmt: skip
DIGITS = (*COMMON, "--subset", 200, "--batch-size", 32)
EXACT = (*DIGITS, "--student", STUDENT, "--drop-path", 0.2, "--ema-decay", 0.9)
CLOSE = (*DIGITS, "--student", "test_vit", "--drop-path", 0)


def losses(out: Path) -> list[float]:
    return [float(str(line["loss"])) for line in metrics(out) if line["group"] == "train"]


class TestStops:
    """A signal to one process ends all after the same step, with a checkpoint."""

    def test_the_same_number_resumes_exactly(self, server: RankServer, tmp_path: Path) -> None:
        """With BatchNorm and stochastic depth; the stop is in the second of two epochs."""
        assert server.run(2, (*EXACT, "--out", tmp_path / "whole"), tmp_path / "log").codes == [0, 0]
        arguments = (*EXACT, "--out", tmp_path / "halves")
        stopped = server.run(2, arguments, tmp_path / "log", signal={"rank": 1, "after": 8, "name": "SIGTERM"})
        assert stopped.codes == [143, 143]
        assert "Stopped at step 8 of 12" in stopped.text("err", 0)
        assert stopped.complaints == [
            "logitstore: stopped by SIGTERM; what is done is kept, and the same command goes on from there."
        ]
        resumed = server.run(2, arguments, tmp_path / "log")
        assert resumed.codes == [0, 0]
        assert "Resuming at step 8 of 12" in resumed.text("err", 0)
        assert same_weights(tmp_path / "whole/model.safetensors", tmp_path / "halves/model.safetensors")

    def test_other_numbers_resume(self, server: RankServer, tmp_path: Path) -> None:
        """One process begins, two go on, four end: the losses are those of one process throughout."""
        assert server.run(1, (*CLOSE, "--out", tmp_path / "whole"), tmp_path / "log").codes == [0]
        arguments = (*CLOSE, "--out", tmp_path / "parts")
        stops = [(1, {"rank": 0, "after": 5, "name": "SIGINT"}), (2, {"rank": 0, "after": 7, "name": "SIGTERM"})]
        for (world, stop), code in zip(stops, (130, 143), strict=True):
            assert server.run(world, arguments, tmp_path / "log", signal=stop).codes == [code] * world
        ended = server.run(4, arguments, tmp_path / "log")
        assert ended.codes == [0] * 4
        assert ended.fed()[0]["position"] == [*range(32, 64)]
        assert len(losses(tmp_path / "parts")) == 12
        assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


class TestFailures:
    """What ends one process ends all, and one of them says why."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> tuple[Path, str]:
        """A folder of images, and the name of one that does not decode: in the second rank's part of step 3 of 4."""
        folder = tmp_path / "data"
        write_images(folder, [f"{label}/{number:02}.png" for label in "ab" for number in range(32)])
        sample = int(VisitOrder(num_samples=64, run_seed=0, epoch=0).samples(2 * 16 + 11))
        bad = sorted(folder.rglob("*.png"))[sample]
        bad.write_bytes(bytes(len(bad.read_bytes())))
        return folder, bad.name

    def test_of_one_process_ends_all_with_one_sentence(
        self, server: RankServer, damaged: tuple[Path, str], tmp_path: Path
    ) -> None:
        folder, name = damaged
        arguments = (*COMMON, "--student", "test_vit", "--data", folder, "--size", 32, "--batch-size", 16)
        ended = server.run(2, (*arguments, "--out", tmp_path / "run"), tmp_path / "log")
        assert ended.codes == [1, 2]
        assert len(ended.complaints) == 1 and name in ended.text("err", 1)
        assert "Traceback" not in ended.text("err")
        assert losses(tmp_path / "run")[2:] == []
        skipping = server.run(2, (*arguments, "--out", tmp_path / "run", "--skip-bad"), tmp_path / "log")
        assert skipping.codes == [0, 0]
        assert skipping.text("err", 0).count("does not decode and is left out") == 1

    @pytest.mark.parametrize(("killed", "when"), [(0, "after"), (1, "after"), (1, "before")])
    def test_a_killed_process_ends_the_other(self, server: RankServer, tmp_path: Path, killed: int, when: str) -> None:
        """Between two steps, and in one, where the other waits for its gradients."""
        arguments = (*CLOSE, "--out", tmp_path / "run")
        ended = server.run(2, arguments, tmp_path / "log", signal={"rank": killed, when: 3, "name": "SIGKILL"})
        assert ended.codes[killed] == -signal.SIGKILL
        assert ended.codes[1 - killed] == 1
        said = ["logitstore: Another process of this run ended; what is done is kept"] if killed == 1 else []
        assert [line.split(",")[0] for line in ended.complaints] == said
        assert "Traceback" not in ended.text("err")

    @pytest.mark.parametrize(
        ("extra", "sentence"),
        [(("--exclude", "/nowhere"), "/nowhere"), (("--base-lr", 1e30, "--warmup-epochs", 0), "lower --base-lr")],
        ids=["feed", "divergence"],
    )
    def test_what_is_wrong_in_all_is_said_once(
        self, server: RankServer, tmp_path: Path, extra: tuple[object, ...], sentence: str
    ) -> None:
        ended = server.run(2, (*CLOSE, "--out", tmp_path / "run", *extra), tmp_path / "log")
        assert ended.codes == [2, 1]
        assert len(ended.complaints) == 1 and sentence in ended.complaints[0]
        assert ended.text("err", 1) == ""

    def test_a_folder_at_work_is_refused_once(self, server: RankServer, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/zarr.json").write_text("{}")
        ended = server.run(2, (*CLOSE, "--out", tmp_path / "run"), tmp_path / "log")
        assert ended.codes == [2, 1]
        assert len(ended.complaints) == 1 and "is a store" in ended.complaints[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("info", "somewhere"), "info is done by one process, and there are 2"),
        ((*CLOSE, "--batch-size", 31), "--batch-size must be even"),
        ((*CLOSE, "--nonsense"), "No such option"),
    ],
    ids=["command", "configuration", "usage"],
)
def test_what_is_wrong_before_processes_meet_is_said_once(
    monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], sentence: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        result = CliRunner().invoke(cli.main, [*map(str, words)])
        assert result.exit_code in (1, 2)
        said.append(result.stderr)
    assert sentence in said[0] and said[1] == ""


def test_processes_that_cannot_meet_are_told_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(cli.main, [*map(str, CLOSE), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "MASTER_ADDR and MASTER_PORT do not say where they meet: start them with torchrun" in result.stderr


def test_sigterm_to_torchrun_leaves_a_checkpoint_that_resumes(server: RankServer, tmp_path: Path) -> None:
    out, torchrun = tmp_path / "run", [sys.executable, "-m", "torch.distributed.run"]
    words = [*map(str, CLOSE), "--epochs", "500", "--out", str(out), "--json"]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [*torchrun, "--standalone", "--nproc-per-node", "2", "-m", "logitstore", *words],
            cwd=TESTS.parent, stdout=subprocess.PIPE, stderr=err, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            limit = time.monotonic() + LIMIT_S
            while time.monotonic() < limit and not (out / "checkpoint.pt").exists():
                assert process.poll() is None, (tmp_path / "err").read_text()
                time.sleep(0.1)
            process.terminate()
            shown, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert shown == ""
    said = (tmp_path / "err").read_text()
    assert said.count("logitstore: stopped by SIGTERM") == 1 == said.count("Stopped at step")
    done = len(losses(out))
    assert done > 0
    stop = {"rank": 0, "after": done + 1, "name": "SIGTERM"}
    resumed = server.run(1, words, tmp_path / "log", signal=stop)
    assert resumed.codes == [143]
    assert f"Resuming at step {done} of 3000" in resumed.text("err")
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == done + 1
