"""What is read from the results of the Swin framework's protocol: accuracies, the order found, settings that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from framework_cases import make_data

from benchmarks.framework import report
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import MODELS, ORDER
from benchmarks.framework.setting import Setting


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("pictures"))


def trained(top1: float, images: int = 1000) -> dict[str, Any]:
    return {"accuracy": {"top1_share": top1, "images": images}, "out": "nowhere"}


@pytest.fixture
def protocol(data: dict[str, str], tmp_path: Path) -> Protocol:
    return Protocol.of(Setting(**data, students=("swin_n",), seeds=(0, 1), out=tmp_path))  # type: ignore[arg-type]


def results_of(protocol: Protocol, shares: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """Results of Table IX's rows, a share for each seed."""
    names = {row.setting: row.variant.name for row in protocol.setting.rows}
    return {f"{names[setting]}-seed{seed}": trained(share)
            for setting, found in shares.items() for seed, share in enumerate(found)}  # fmt: skip


def test_a_row_shows_mean_seeds_interval_and_the_paper(protocol: Protocol) -> None:
    results = results_of(protocol, {"scratch": (0.60, 0.64)}) | {"teacher-swin_t": {"top1": 0.9, "num_samples": 500}}
    teacher, scratch, distilled, *_ = report.accuracy_rows(protocol, results)
    assert teacher["top-1 %"] == 90 and teacher[report.PAPER] == 87.35 and teacher["difference"] == 2.65
    assert scratch["top-1 %"] == 62 and scratch["each seed"] == "60.00, 64.00" and scratch[report.PAPER] == 66.32
    assert scratch["95% interval"] == "59.0 to 65.0"  # Wilson's for 620 of 1000
    assert scratch["difference"] == pytest.approx(-4.32)
    assert "top-1 %" not in distilled and distilled[report.PAPER] == 76.13


def test_the_order_found_is_reported_whatever_it_is(protocol: Protocol) -> None:
    shares = {"scratch": (0.5, 0.5), "distilled": (0.8, 0.8), "copied": (0.6, 0.9), "both": (0.82, 0.83)}
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, shares)))
    assert order["paper"] == "scratch < distilled < copied < both"
    assert order["found"] == "scratch < copied < distilled < both" and not order["same"]
    first, second, third = order["steps"]
    assert "distilled against scratch: +30.00 points, higher in 2 of 2 seeds; the intervals lie apart" in first
    assert "copied against distilled: -5.00 points, higher in 1 of 2 seeds" in second
    assert "the paper: +2.50" in third


def test_no_order_is_found_while_a_row_is_missing(protocol: Protocol) -> None:
    shares = dict.fromkeys(ORDER[:3], (0.5, 0.5))
    assert report.orders(report.accuracy_rows(protocol, results_of(protocol, shares))) == []


def test_close_accuracies_decide_nothing(protocol: Protocol) -> None:
    shares = {"scratch": (0.5, 0.5), "distilled": (0.51, 0.51), "copied": (0.52, 0.52), "both": (0.53, 0.53)}
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, shares)))
    assert order["same"] and all("undecided" in line for line in order["steps"])


def test_equal_accuracies_are_not_the_papers_order(protocol: Protocol) -> None:
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, dict.fromkeys(ORDER, (0.5, 0.5)))))
    assert not order["same"] and order["found"] == "scratch = distilled = copied = both"


def test_the_report_says_how_the_settings_differ(protocol: Protocol) -> None:
    found = report.summary(protocol, {}, 1.0)
    lines = {line["what"]: line for line in found["setting"]}
    assert lines["teacher before fine-tuning"]["here"] .endswith(" swin_tiny_patch4_window7_224.ms_in1k")
    assert lines["epochs"] == {"what": "epochs", "paper": "60 (Table IV: 30)", "here": "60"}
    assert found["claim"] is None and not found["complete"] and found["steps_done"] == 0


def test_digits_are_compared_with_nothing(tmp_path: Path) -> None:
    protocol = Protocol.of(Setting(students=("swin_n",), out=tmp_path))
    found = report.summary(protocol, results_of(protocol, {"scratch": (0.5,)}), 1.0)
    assert found["claim"] == report.NO_CLAIM
    assert found["rows"][1]["top-1 %"] == 50 and not any("difference" in row for row in found["rows"])
    assert "difference" not in report.columns(found["rows"])


def test_a_teacher_pretrained_on_the_same_images_is_said_to_be(data: dict[str, str], tmp_path: Path) -> None:
    setting = Setting(**data, pretrain_data=data["data"], pretrain_epochs=9, out=tmp_path)  # type: ignore[arg-type]
    found = report.summary(Protocol.of(setting), {}, 1.0)
    (origin,) = [line["here"] for line in found["setting"] if line["what"] == "teacher before fine-tuning"]
    assert origin == "pre-trained from random weights on the training images themselves, 9 epochs"


def test_table_x_stands_beside_the_papers(protocol: Protocol) -> None:
    figures = [{"name": name, "images_per_second": 2 * speed, "parameters": int(1e6 * size)}
               for name, (speed, size) in MODELS.items()]  # fmt: skip
    rows = report.model_rows({"models": figures})
    assert rows[0] == {"model": "swin_n", "img/s": 1147.6, "paper img/s": 573.8, "M parameters": 20.5, "paper M": 20.5}
    assert report.model_rows(None) == []
