"""A whole contraction on digits: what it leaves, and how it goes on."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from contract_cases import briefly_timed, config, journal, make_material, trials
from safetensors.torch import load_file
from train_cases import Spy

import cli
from logitstore.cards import load_card
from logitstore.contract import ContractResult, contract
from logitstore.contract.bench import Bench
from logitstore.errors import InputError, MismatchError
from logitstore.locks import locked
from logitstore.models import restore_model
from logitstore.train import TrainConfig
from students.contract import Factors


@pytest.fixture(scope="module", autouse=True)
def quickly() -> Iterator[None]:
    with briefly_timed():
        yield


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    make_material(folder)
    return folder


@pytest.fixture(scope="module")
def spy() -> Spy:
    return Spy()


@pytest.fixture(scope="module")
def found(material: Path, spy: Spy) -> ContractResult:
    return contract(config(material, material / "found", picture=str(material / "pareto.svg")), spy)


@pytest.fixture
def copy(found: ContractResult, tmp_path: Path) -> Path:
    """A search that is over, to go on with."""
    return Path(shutil.copytree(found.out, tmp_path / "copy"))


class TestWhatIsFound:
    def test_the_best_keeps_to_the_target_and_steps_to_their_bounds(self, found: ContractResult) -> None:
        first, second = found.steps
        assert first.bounds.parameters == pytest.approx((found.start_parameters * 200_000) ** 0.5)
        assert second.bounds.parameters == 200_000
        assert (first.trained, second.trained) == (2, 2)
        for entry in found.trained:
            assert entry.trial.parameters <= found.steps[entry.trial.step - 1].bounds.parameters
            assert entry.trial.throughput is not None and entry.accuracy is not None
            assert entry.accuracy["images"] == 20 and entry.trial.score == entry.accuracy["top1_share"]
        assert found.best.trial.number == second.best and found.best.trial.parameters <= 200_000
        assert found.best.trial.score == max(e.trial.score for e in found.trained if e.trial.parameters <= 200_000)

    def test_the_checkpoint_is_the_model_that_was_found(self, found: ContractResult) -> None:
        state, card = load_file(found.checkpoint), load_card(found.checkpoint)
        assert card is not None and (card.model, card.size, card.num_classes) == ("tiny_vit_5m_224", 32, 10)
        model = restore_model(card.model, state, size=32, card=card)
        assert sum(parameter.numel() for parameter in model.parameters()) == found.best.trial.parameters
        assert len(list(Path(found.out).glob("candidates/*/model.safetensors"))) == len(found.trained)
        left = {file.name for file in Path(found.out).glob("candidates/*/[!.]*")}
        assert left == {"model.safetensors", "model.json", "metrics.jsonl", "run.yaml"}, "nothing is gone on with"

    def test_the_command_trains_it_in_earnest(self, found: ContractResult, material: Path) -> None:
        _, name, *words = shlex.split(found.command)
        given = cli.main.commands[name].make_context(name, words).params
        assert given["student_args"] == found.best.trial.factors.student_args()
        assert (given["student"], given["data"], given["epochs"]) == ("tinyvit_5m", "digits", None)
        assert (given["store"], given["batch_size"]) == (str(material / "store"), 32)
        assert given["val_data"] == str(material / "val.npz") and given["out"] == f"{found.out}/trained"

    def test_the_command_repeats_what_was_given(self, found: ContractResult, material: Path) -> None:
        given = {
            "store": ("a b", "c"), "weights": (0.25, 0.75), "skip_bad": True, "size": 64,
            "recipe": "tinyvit_1k_distill", "base_lr": 0.001, "drop_path": 0.0,
            "view": "crop_flip", "topk": 3, "seed": 5, "accumulate": 2,
        }  # fmt: skip
        searched = config(material, material, **given, workers=4, device="cpu", dtype="float32")
        factors = found.best.trial.factors
        _, name, *words = shlex.split(searched.train_command(factors, "there"))
        read = cli.main.commands[name].make_context(name, words).params
        assert {option: read[option] for option in given} == given
        wanted = replace(searched.training_of(factors, "there"), epochs=None, workers=None, device="auto", dtype="auto")
        read = {option: value for option, value in read.items() if option not in ("config", "as_json")}
        assert TrainConfig(**read) == replace(wanted, tensorboard=True)

    def test_it_says_what_became_of_each_candidate(self, found: ContractResult, spy: Spy) -> None:
        assert sum(line.startswith("Step ") for line in spy.said) == 2
        assert "Step 2 of 2: at most 200,000 parameters." in spy.said
        for entry in found.entries:
            (line,) = (line for line in spy.said if line.startswith(f"candidate {entry.trial.number},"))
            assert str(entry.trial.factors) in line
            if entry.trial.broken is None:
                assert f"top-1 {entry.trial.score:.1%}." in line
            else:
                assert line.endswith(f"rejected, {entry.trial.broken}.") and "more than" in line
        assert any(entry.trial.broken for entry in found.entries)

    def test_as_json_and_as_text(self, found: ContractResult) -> None:
        told = found.to_dict()
        assert json.loads((Path(found.out) / "contract.json").read_text()) == json.loads(json.dumps(told))
        assert [line["number"] for line in told["candidates"]] == list(range(len(found.entries)))
        assert told["best"]["number"] == found.best.trial.number
        assert Factors.from_dict(told["best"]["factors"]) == found.best.trial.factors
        assert told["steps"][1] == {
            "step": 2, "max_parameters": 200_000, "min_throughput": None, "trained": 2,
            "rejected": found.steps[1].rejected, "best": found.best.trial.number,
        }  # fmt: skip
        lines = found.lines()
        assert [row["no"] for row in lines["candidates"]] == [entry.trial.number for entry in found.trained]
        assert f"{found.best.trial.parameters:,} (" in lines["parameters"]

    def test_a_picture_is_drawn(self, found: ContractResult) -> None:
        assert found.picture is not None
        text = Path(found.picture).read_text()
        assert text.startswith("<?xml") and "parameters in millions" in text and "images a second" in text


class TestGoingOn:
    def test_what_is_done_is_not_done_again(
        self, copy: Path, found: ContractResult, material: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("_timed", "score"):
            monkeypatch.setattr(Bench, name, lambda *_: pytest.fail("done again"))
        again = contract(config(material, copy))
        assert again.entries == found.entries and again.best == found.best
        assert journal(copy) == journal(Path(found.out))

    def test_what_a_kill_left_of_a_candidate_is_removed(
        self, copy: Path, found: ContractResult, material: Path
    ) -> None:
        before = sorted(copy.rglob("*"))
        folder = copy / "candidates" / f"{found.best.trial.number:03d}"
        for name in ("checkpoint.pt", "best.safetensors", "best.json"):
            (folder / name).write_text("of the training")
        contract(config(material, copy))
        assert sorted(copy.rglob("*")) == before

    def test_a_torn_last_line_is_done_again(self, copy: Path, found: ContractResult, material: Path) -> None:
        path = copy / "journal.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[: whole[:-1].rindex(b"\n") + 20])
        assert not path.read_bytes().endswith(b"\n")
        contract(config(material, copy))
        assert trials(copy) == trials(Path(found.out))

    @pytest.mark.parametrize("as_json", [True, False])
    def test_the_command_does_the_same(self, copy: Path, found: ContractResult, material: Path, as_json: bool) -> None:
        words = ["--from", "tinyvit_5m", "--max-params", "200K", "--steps", 2, "--candidates", 2, "--epochs", 1]
        words += ["--store", material / "store", "--val-data", material / "val.npz", "--batch-size", 32, "--out", copy]
        result = CliRunner().invoke(cli.main, ["contract", *map(str, words), *(["--json"] if as_json else [])])
        assert result.exit_code == 0, result.stderr
        assert f"Going on after {len(found.entries)} candidates" in result.stderr
        best = found.best.trial
        if as_json:
            assert json.loads(result.stdout)["best"]["factors"] == best.factors.to_dict()
        else:
            assert f"best        candidate {best.number}, {best.factors}\n" in result.stdout
            assert "  no  step  widths " in result.stdout

    @pytest.mark.parametrize(
        ("options", "differs"),
        [
            ({"max_params": 300_000}, "max_params=200000"),
            ({"min_throughput": "1.1x"}, "min_throughput=None"),
            ({"seed": 1}, "seed=0"),
            ({"epochs": 3}, "recipe.epochs=1"),
            ({"start": "tinyvit_11m"}, "from=tiny_vit_5m_224"),
            ({"val_data": None}, "val_data="),
            ({"dtype": "bfloat16"}, "dtype=float32"),
            ({"topk": 3}, "topk=None"),
            ({"accumulate": 2}, "accumulate=1"),
            ({"drop_path": 0.3}, "drop_path="),
        ],
    )
    def test_another_search_is_refused(
        self, copy: Path, material: Path, options: dict[str, Any], differs: str
    ) -> None:
        before = sorted(copy.rglob("*"))
        with pytest.raises(MismatchError) as refused:
            contract(config(material, copy, **options))
        assert differs in str(refused.value.stored) and "--out" in str(refused.value)
        assert sorted(copy.rglob("*")) == before

    def test_threads_and_pictures_are_free_to_change(self, copy: Path, found: ContractResult, material: Path) -> None:
        again = contract(config(material, copy, workers=2, picture=str(copy.parent / "again.png")))
        assert again.best == found.best and (copy.parent / "again.png").stat().st_size > 10_000

    def test_candidates_of_another_space_are_refused(self, copy: Path, material: Path) -> None:
        path = copy / "journal.jsonl"
        path.write_text(path.read_text().replace('"mlp_ratio": ', '"mlp_ratio": 1'))
        with pytest.raises(InputError, match=r"tells of candidates that there are not \(mlp_ratio = 1.* Give another"):
            contract(config(material, copy))

    def test_one_process_at_a_time(self, copy: Path, material: Path) -> None:
        with locked(copy / ".lock", "taken"), pytest.raises(InputError, match="Another process is at work"):
            contract(config(material, copy))

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            (b"no json\n", "JSONDecodeError"),
            (b"{}\n", "KeyError: 'trial'"),
            (b'{"trial": {"number": 9}}\n', "KeyError"),
            (b'{"search": {}, "version": 7}\n', "it has version 7"),
        ],
    )
    def test_a_journal_that_cannot_be_read_is_refused(
        self, copy: Path, material: Path, line: bytes, why: str
    ) -> None:
        with (copy / "journal.jsonl").open("ab") as file:
            file.write(line)
        with pytest.raises(InputError, match=rf"journal\.jsonl cannot be read \(.*{why}.*move it away"):
            contract(config(material, copy))
