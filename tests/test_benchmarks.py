"""The benchmarks' own arithmetic, and every script in its quick form down to the JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import common, demo, plots, storage
from benchmarks.common import Timing
from benchmarks.measures import views
from logitstore.cuts import Dense

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON line of a script that is run as a file."""
    path = str(ROOT / "benchmarks" / script)
    done = subprocess.run([sys.executable, path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def made_logits(images: int = 96, classes: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal((images * storage.VIEWS, classes))).astype(np.float32)


def test_interleaved_takes_turns_and_drops_the_first_round() -> None:
    calls: list[str] = []

    def candidate(name: str) -> common.Work:
        def work() -> int:
            calls.append(name)
            return 10

        return work

    timings = common.interleaved({"a": candidate("a"), "b": candidate("b")}, repeats=3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(found) for found in timings.values()] == [3, 3]
    assert all(timing.count == 10 and timing.wall > 0 for timing in timings["a"])


def test_rates_and_ratios_are_medians() -> None:
    fast = [Timing(count=100, wall=wall, cpu=2 * wall) for wall in (1.0, 2.0, 50.0)]
    slow = [Timing(count=100, wall=2 * wall, cpu=0.0) for wall in (1.0, 2.0, 50.0)]
    assert common.median_rate(fast) == 50
    assert common.median_rate(fast, per_core=True) == 25  # two threads are charged twice
    assert common.median_ratio(fast, slow) == 2


def test_a_saved_result_says_where_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.finish("question", {"answer": 42}, save=True, details={"more": [1]})
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert result["answer"] == 42 and result["more"] == [1]
    assert {"cpu", "cores"} <= result["hardware"].keys()
    assert {"python", "torch", "numpy"} <= result["versions"].keys()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"answer": 42}


def test_a_written_store_has_the_divergence_foretold_in_memory(tmp_path: Path) -> None:
    dense = Dense.of(made_logits())
    setting = storage.Setting(topk=10, floor=1e-3)
    row = storage.measure(tmp_path, dense, setting)
    assert row["kl"] == pytest.approx(dense.kl_of(setting).mean(), rel=1e-6)
    assert 1 <= row["mean_kept"] <= 10
    assert not list(tmp_path.iterdir())


def test_storage_prints_its_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "logits.npz", logits=made_logits())
    line = run("storage.py", "--quick", "--logits", str(tmp_path / "logits.npz"))
    wanted = {"codec", "topk", "floor", "values", "epochs", "mean_kept", "bytes_per_record", "kl"}
    assert line["rows"] and all(wanted <= row.keys() for row in line["rows"])
    assert all(row["bytes_per_record"] > 5 and row["kl"] >= 0 for row in line["rows"] if row["codec"] == "standard")
    packed = [row for row in line["rows"] if row["codec"] == "packed"]
    assert {row["values"] for row in packed} == {"q8", "q4", "q2", "f16"} and {row["best"] for row in packed} == {0, 1}
    for row in packed:
        assert 0 < row["bytes_per_record_90_epochs"] < row["bytes_per_record"] < row["standard"]
        assert row["encode_records_per_s"] > 0 and row["decode_records_per_s"] > 0
        assert row["quality"] == "float16, K=10" or row["kl"] <= float(storage.targets.at(row["quality"]).kl)
    assert {row["values"] for row in line["rows"]} == {"q8", "q4", "q2", "f16"}


def test_digits_stand_in_for_absent_logits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage, "REAL_LOGITS", tmp_path / "absent.npz")
    logits, source = storage.load_logits(None)
    assert logits.shape[0] % storage.VIEWS == 0 and logits.shape[1] == 10 and "digits" in source


@pytest.fixture
def jpegs(tmp_path: Path) -> str:
    """A folder of JPEGs."""
    blobs, _ = views.load_jpegs(None, limit=4)
    for number, blob in enumerate(blobs):
        (tmp_path / f"{number}.jpg").write_bytes(blob)
    return str(tmp_path)


def test_throughput_prints_its_rates(jpegs: str) -> None:
    line = run("throughput.py", "--quick", "--images", jpegs)
    rates = ("scan_records_per_s", "scan100_records_per_s", "view_images_per_s", "packed_view_images_per_s",
             "pair_scan_records_per_s", "pair_mean_records_per_s", "pair100_mean_records_per_s")  # fmt: skip
    ratios = ("view_ratio", "packed_view_ratio", "dump_ratio", "train_ratio", "loss_ratio", "pair_train_ratio")
    for key in (*rates, *ratios, "import_s", "help_s"):
        assert line[key] > 0, key
    assert isinstance(line["loss_extra_bytes"], int) and isinstance(line["rss_growth_mib"], float)


@pytest.mark.slow
def test_the_rows_of_a_gpu_run_on_a_cpu(jpegs: str) -> None:
    line = run("gpu.py", "--quick", "--device", "cpu", "--images", jpegs)
    for key in ("train_ratio", "train_over_swin_t_alive", "dump_ratio", "dump_cores_needed", "loss_ratio"):
        assert line[key] > 0, key
    assert line["device"] == "cpu" and line["train_store_peak_mib"] is None


def test_without_a_gpu_nothing_is_measured() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no GPU here" in done.stderr and not done.stdout


@pytest.mark.slow
def test_scaling_prints_what_grows() -> None:
    line = run("scaling.py", "--quick")
    assert line["largest"] == 20_000 and line["scan_growth"] > 0 and line["private_mib"] < 64
    assert line["dump_two_processes_ratio"] > 0.5
    records = 14_197_122 * 90
    assert 15 * records / 1e9 < line["imagenet21k_gb"] < 44 * records / 1e9


def test_verdicts_stand_beside_targets(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"rate": 2.0, "cost": 2.0, "other": 1.0}
    common.print_verdicts(summary, at_least={"rate": 2.0, "absent": 1.0}, at_most={"cost": 1.0})
    assert capsys.readouterr().out.split("\n")[1:3] == [
        "rate: 2, target at least 2: met",
        "cost: 2, target at most 1: missed",
    ]


def test_pictures_are_drawn_from_the_newest_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    speeds = [{"what": name, "images_per_s": 100.0} for name in ("decoding (a ceiling)", "ours", "timm")]
    costs = [{"samples": n, "write_us": 1.0, "scan_us": 0.1, "private_mib": 20.0} for n in (10_000, 20_000)]
    for day in ("01", "02"):
        date = f"2026-01-{day}"
        for question, found in (("throughput", {"tables": {"views": speeds}}), ("scaling", {"rows": costs})):
            (tmp_path / f"{date}-{question}.json").write_text(json.dumps({"date": date, **found}))
    plots.main(["--results", str(tmp_path), "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("from 2026-01-02-") == 2
    for name in ("performance-views.png", "performance-scaling.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="holds no result of throughput: run python -m"):
        plots.main(["--results", str(tmp_path / "none")])


def test_a_flipped_bit_is_one_bit(tmp_path: Path) -> None:
    victim = tmp_path / "logp" / "c" / "0" / "0"
    victim.parent.mkdir(parents=True)
    victim.write_bytes(bytes(9))
    assert demo.flip_a_bit(tmp_path) == victim
    assert sum(byte.bit_count() for byte in victim.read_bytes()) == 1


@pytest.mark.parametrize(
    ("distilled", "outcome"),
    [((0.9, 0.95), "undecided"), ((0.97, 0.99), "distilled is better"), ((0.7, 0.8), "labels are better")],
)
def test_overlapping_intervals_decide_nothing(distilled: tuple[float, float], outcome: str) -> None:
    alone = {"model": "m", "top-1 %": 93.0, "interval": (0.91, 0.96)}
    assert outcome in demo.verdict(alone, {"model": "m", "top-1 %": 94.0, "interval": distilled})


@pytest.mark.slow
def test_the_demo_runs_from_start_to_end() -> None:
    line = run("demo.py", "--quick")
    assert line["checks"]["verify_ok"] and len(line["checks"]["damage_found"]) == 1
    assert line["store"]["shards_after"] > 0
    assert [row["trained on"] for row in line["models"]] == ["teacher, labels", "labels alone", "store, no labels"]
