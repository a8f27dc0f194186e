"""What a contraction refuses, and what it makes of candidates that come out oddly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from contract_cases import briefly_timed, config, factors_of, journal, make_material, trials
from train_cases import Spy

import cli
from logitstore.contract import contract
from logitstore.contract.bench import Bench
from logitstore.errors import InputError, NonFiniteError
from logitstore.train import train
from students.contract import Space, Trial


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    with briefly_timed():
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    make_material(folder)
    return folder


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_params": None}, "needs a bound: give --max-params, --min-throughput"),
            ({"max_params": 0}, "--max-params must be at least 1"),
            ({"steps": 0}, "--steps must be at least 1"),
            ({"candidates": 0}, "--candidates must be at least 1"),
            ({"min_throughput": "0x"}, "--min-throughput must be images a second"),
            ({"min_throughput": "-3"}, "--min-throughput must be images a second"),
            ({"batch_size": 31}, "--batch-size must be even"),
            ({"recipe": "none_such"}, "no recipe 'none_such'"),
            ({"start": "deit_ti"}, "deit_ti is no TinyViT"),
            ({"start": "no_such_model"}, "no model called no_such_model"),
            ({"max_params": 5_000}, r"smallest model that tinyvit_5m can be contracted to has [\d,]+ parameters"),
            ({"max_params": 6_000_000}, r"keeps to the bounds as it is \(--max-params 6000000\)"),
            ({"max_params": 6_000_000, "min_throughput": "1x"}, "--max-params 6000000 and --min-throughput 1x"),
            ({"picture": "pareto.gif"}, r"must end in \.png, \.pdf or \.svg"),
        ],
    )
    def test_what_cannot_be_searched_for(
        self, options: dict[str, Any], message: str, material: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            contract(config(material, tmp_path / "out", **options))
        assert not list(tmp_path.iterdir()), "something was written"

    def test_a_start_that_is_fast_enough_when_it_is_measured(self, material: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"keeps to the bounds as it is \(--min-throughput 0\.001\): there is"):
            contract(config(material, tmp_path / "out", max_params=None, min_throughput="0.001"))
        assert not list(tmp_path.glob("out/[!.]*")), "something was written"

    def test_a_folder_that_holds_something_else(self, material: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds something that no contraction left there"):
            contract(config(material, material / "store"))
        (tmp_path / "file").write_text("text")
        with pytest.raises(InputError, match="file is no folder"):
            contract(config(material, tmp_path / "file"))

    def test_nothing_to_compare_candidates_on(
        self, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("logitstore.train.feed.open_validation", lambda *_, **__: None)
        with pytest.raises(InputError, match="digits has nothing to validate on: name images with labels by --val-"):
            contract(config(material, tmp_path))

    def test_a_throughput_out_of_reach(
        self, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Bench, "measure", lambda *_: 2.0)
        wanted = config(material, tmp_path / "out", min_throughput="99x", candidates=1, steps=1)
        with pytest.raises(InputError, match=r"None of 20 .* reached 2 img/s\. To go on, raise --max-params or lower "):
            contract(wanted)
        kept = [line["trial"] for line in journal(tmp_path / "out")[1:]]
        assert len(kept) == 20 and all(trial["score"] is None and trial["broken"] for trial in kept)


def test_a_stop_says_that_what_is_done_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("logitstore.contract.run.Task.of", stopped)
    result = CliRunner().invoke(cli.main, ["contract", "--max-params", "5M"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("what is done is kept, and the same command goes on from there.\n")


def test_what_another_version_left_half_trained_is_trained_anew(material: Path, tmp_path: Path) -> None:
    """The first candidate's folder holds the run of another model, which the journal knows nothing of."""
    first, second = tmp_path / "first", tmp_path / "second"
    contract(config(material, first, candidates=1, steps=1))
    (number,) = (entry["number"] for entry in trials(first) if entry["score"] is not None)
    folder = second / "candidates" / f"{number:03d}"
    train(replace(config(material, second, epochs=2).training(), student="test_vit", out=str(folder)))
    (second / "journal.jsonl").write_text("")
    contract(config(material, second, candidates=1, steps=1))
    assert trials(second) == trials(first)


def test_a_published_model_is_named_when_hit(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the largest TinyViT, on scores that point to the middle one, without a training."""
    goal, spy = factors_of("11m_224", 32), Spy()
    space = Space(start=factors_of("21m_224", 32), size=32)

    def score(bench: Bench, trial: Trial) -> float:
        far = sum((a - b) ** 2 for a, b in zip(space.point(trial.factors), space.point(goal), strict=True))
        bench.accuracies[trial.number] = {"top1_share": 1 / (1 + far)}
        return 1 / (1 + far)

    monkeypatch.setattr(Bench, "score", score)
    monkeypatch.setattr(Bench, "measure", lambda bench, trial: 100.0)
    result = contract(
        config(material, tmp_path / "out", start="tinyvit_21m", max_params=10_600_000, candidates=90, steps=3), spy
    )
    assert result.best.trial.factors == goal and result.best.trial.score == 1
    assert result.names == {result.best.trial.number: "tinyvit_11m"}
    assert "(tinyvit_11m as published)" in result.lines()["best"]
    assert [row["no"] for row in result.lines()["candidates"] if row["published"]] == [result.best.trial.number]
    assert result.to_dict()["best"]["name"] == "tinyvit_11m"
    assert sum("(tinyvit_11m as published)" in line for line in spy.said) == 1


def test_a_candidate_whose_loss_is_not_finite_is_the_last(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise NonFiniteError("NaN")

    monkeypatch.setattr("logitstore.contract.bench.train", broken)
    with pytest.raises(InputError, match="no candidate that meets the bounds stayed finite: lower --base-lr"):
        contract(config(material, tmp_path, candidates=1, steps=1))
    assert [line["trial"]["score"] for line in journal(tmp_path) if "trial" in line][-1] == 0.0
