"""What is read from the results of MiniViT's ablations: accuracies, the order found, settings that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from framework_cases import make_data

from benchmarks.minivit_parts import report
from benchmarks.minivit_parts.protocol import MiniVitProtocol, trained
from benchmarks.minivit_parts.rows import rows_of
from benchmarks.minivit_parts.setting import MiniVitSetting


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("pictures"))


def protocol_of(out: Path, **values: Any) -> MiniVitProtocol:
    return MiniVitProtocol.of(MiniVitSetting(out=out, **values))


def told(top1: float) -> dict[str, Any]:
    """What ``train`` prints, as far as the report reads it."""
    return {"accuracy": {"top1_share": top1, "images": 1000}, "out": "nowhere"}


def results_of(protocol: MiniVitProtocol, table: str, shares: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    steps = {one.title: one for one in rows_of((table,))}
    return {
        trained(steps[title], seed): told(share)
        for title, by_seed in shares.items()
        for seed, share in enumerate(by_seed, start=1)
    }


def test_the_order_found_stands_beside_the_papers(data: dict[str, str], tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, **data, seeds=(1, 2), tables=("swin",))
    shares = {"base": (0.6, 0.6), "WS": (0.4, 0.42), "WS+WD": (0.5, 0.4), "WS+WT": (0.45, 0.47), "WS+WD+WT": (0.7, 0.7)}
    found = report.summary(protocol, results_of(protocol, "swin", shares), 1.0)
    (order,) = found["orders"]
    assert order["found"] == "WS < WS+WD < WS+WT < base < WS+WD+WT"
    assert order["paper"] == "WS < WS+WT < WS+WD < base < WS+WD+WT"
    assert (order["agreeing"], order["pairs"], order["same"]) == (9, 10, False)
    cost, distilled, *_ = order["differences"]
    assert cost.startswith("WS against base: -19.00 points, higher in 0 of 2 seeds; the intervals lie apart")
    assert distilled.startswith("WS+WD against WS: +4.00 points, higher in 1 of 2 seeds; undecided")
    assert distilled.endswith("the paper: +0.80")
    assert found["claim"] == report.LITTLE_CLAIM and not found["complete"]
    teacher, base, *_ = found["rows"]
    assert teacher == {"table": "", "row": "teacher swin_t"}
    assert base["95% interval"] == "56.9 to 63.0" and base[report.PAPER] == 81.2 and "GMACs" not in base


def test_rows_that_the_paper_has_equal_have_no_order(data: dict[str, str], tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, **data, tables=("losses",))
    by_paper = sorted(rows_of(("losses",)), key=lambda one: one.paper)
    shares = {one.title: (0.5 + place / 100,) for place, one in enumerate(by_paper)}
    results = results_of(protocol, "losses", shares)
    (order,) = report.summary(protocol, results, 1.0)["orders"]
    assert order["same"] and order["agreeing"] == order["pairs"] == 14  # of 15 pairs one is equal there
    del results[trained(by_paper[0], 1)]
    assert report.summary(protocol, results, 1.0)["orders"] == []


def test_the_report_says_how_the_run_differs(tmp_path: Path) -> None:
    found = report.summary(protocol_of(tmp_path), {}, 1.0)
    here = {line["what"]: line["here"] for line in found["setting"]}
    assert here["teacher of DeiT"] == "swin_t; its answers alone" and here["layers compared"] == "9:9,7:7,5:5,3:3,1:1"
    assert here["arguments of every swin"] == "embed_dim=32 num_heads=1:2:4:8"
    assert found["claim"] == report.NO_CLAIM


def test_the_report_names_what_a_teacher_was_pretrained_on(data: dict[str, str], tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, **data, teacher_name="swin_b", tables=("losses",))
    here = {line["what"]: line["here"] for line in report.summary(protocol, {}, 1.0)["setting"]}
    assert here["teacher before fine-tuning"].endswith(" swin_base_patch4_window7_224.ms_in22k_ft_in1k")


def test_settings_are_those_of_the_rows_that_are_run(tmp_path: Path) -> None:
    def told_of(*tables: str) -> set[str]:
        return {line["what"] for line in report.summary(protocol_of(tmp_path, tables=tables), {}, 1.0)["setting"]}

    swin, deit = told_of("swin"), told_of("deit")
    assert swin - deit == {"teacher of Swin", "layers compared", "hidden states", "arguments of every swin"}
    assert deit - swin == {"teacher of DeiT", "DeiT without sharing", "arguments of every deit"}
