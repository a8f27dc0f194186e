"""Run files and the folder of a run: what repeats a run, what is refused, who may write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from train_cases import BATCH, STUDENT, config, make_store

import cli
from logitstore.errors import InputError
from logitstore.train import TrainConfig, train
from logitstore.train.notes import misfits
from logitstore.train.runfile import as_yaml, read_options
from students.recipes import RECIPES, select_recipe

SMALL = ["--student", STUDENT, "--epochs", 1, "--batch-size", BATCH, "--workers", 1, "--no-tensorboard"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def written(folder: Path, text: str) -> Path:
    path = folder / "written.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def first(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    flags = ["--distillation", "kl", "--temperature", 2, "--drop-path", 0.2, "--seed", 5, "--label-smoothing", 0.1]
    result = command(*SMALL, *flags, "--store", store, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


class TestRepeating:
    """From the command line, where a user repeats a run."""

    def test_a_run_file_repeats_the_run_to_the_byte(self, first: Path, tmp_path: Path) -> None:
        result = command("--config", first / "run.yaml", "--out", tmp_path / "again", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["steps"] == 6
        assert weights(tmp_path / "again") == weights(first)
        saved, repeated = (yaml.safe_load((out / "run.yaml").read_text()) for out in (first, tmp_path / "again"))
        assert saved["effective"] == repeated["effective"]
        assert saved["options"] | {"out": str(tmp_path / "again")} == repeated["options"]

    def test_it_is_printed_in_full_before_the_first_step(self, first: Path, tmp_path: Path) -> None:
        result = command("--config", first / "run.yaml", "--out", tmp_path / "again")
        assert (tmp_path / "again" / "run.yaml").read_text() in result.stderr
        recipe = yaml.safe_load((first / "run.yaml").read_text())["options"]["recipe"]
        assert recipe == RECIPES["digits"]().to_dict() | {
            "epochs": 1, "warmup_epochs": 0.25, "batch_size": BATCH, "distillation": "kl", "temperature": 2.0,
            "drop_path": {"any": 0.2}, "label_smoothing": 0.1,
        }  # fmt: skip

    def test_a_flag_overrides_the_file(self, first: Path, tmp_path: Path) -> None:
        result = command("--config", first / "run.yaml", "--out", tmp_path / "other", "--seed", 6, "--epochs", 2)
        assert result.exit_code == 0, result.stderr
        options = yaml.safe_load((tmp_path / "other" / "run.yaml").read_text())["options"]
        assert (options["seed"], options["recipe"]["epochs"], options["recipe"]["warmup_epochs"]) == (6, 2, 0.5)
        assert (options["recipe"]["temperature"], options["workers"], options["tensorboard"]) == (2.0, 1, False)
        assert weights(tmp_path / "other") != weights(first)

    def test_in_the_same_folder_it_goes_on_with_the_run(self, first: Path) -> None:
        result = command("--config", first / "run.yaml")
        assert result.exit_code == 0
        assert "All 6 steps are done" in result.stderr

    def test_the_weak_baseline_of_a_distilled_run(self, first: Path, tmp_path: Path) -> None:
        """Without the file's store and loss, which have no meaning then."""
        result = command("--config", first / "run.yaml", "--hard-labels-only", "--subset", 200, "--out", tmp_path / "b")
        assert result.exit_code == 0, result.stderr
        described = yaml.safe_load((tmp_path / "b" / "run.yaml").read_text())
        assert described["effective"]["targets"] == "hard labels"
        assert "store" not in described["options"]
        assert (described["options"]["recipe"]["distillation"], described["options"]["seed"]) == ("none", 5)


def sample_of(hint: Any) -> Any:
    """Another value than the default's for a field of this type."""
    values = {"tuple": (0.5, 0.25), "bool": True, "int": 8, "float": 0.25, "str": "x"}
    return next(value for kind, value in values.items() if kind in str(hint))


def test_every_field_goes_through_a_run_file(tmp_path: Path) -> None:
    special = {"recipe": "swin_framework", "shuffle": "shards", "joint": "alpha", "distillation": "kl"}
    values = {field.name: special.get(field.name, sample_of(field.type)) for field in fields(TrainConfig)}
    values |= {"hard_labels_only": False, "tensorboard": False, "skip_bad": True}
    del values["harmonic_weights"]
    one = TrainConfig(**values)
    path = written(tmp_path, as_yaml({"options": one.options(), "effective": {}}))
    again = TrainConfig.from_yaml(path)
    assert again.options() == one.options()
    assert again.effective_recipe() == one.effective_recipe()
    kept = {field.name for field in fields(TrainConfig)} & set(one.options()) - {"recipe"}
    assert {name: getattr(again, name) for name in kept} == {name: values[name] for name in kept}
    recipe = {field.name for field in fields(select_recipe())} - {"name", "view", "size"}
    assert kept | recipe | {"recipe", "fresh", "view", "size"} == {field.name for field in fields(TrainConfig)}


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "student: swin_n\nrecipe: swin_framework\nbase-lr: 1e-3\njoint: alpha\nalpha: [0, 0.5]\nbn_eval: false\n"
        "store: 12:30\nout: no\n",
    )
    read = TrainConfig.from_yaml(path, epochs=30)
    assert (read.student, read.base_lr, read.bn_eval, read.store, read.out) == ("swin_n", 1e-3, False, "12:30", "no")
    assert read.effective_recipe() == select_recipe(
        "swin_framework", base_lr=1e-3, joint="alpha", alpha=(0.0, 0.5), epochs=30
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- student\n", "must be a mapping of options to values"),
        ("", "must be a mapping of options to values"),
        ("student: [swin_n\n", "written.yaml is no YAML (line 2: "),
        ("lr: 1\n", "gives lr, which is no option"),
        ("base_rl: 1\n", "gives base_rl, which is no option; close ones are base_lr"),
        ("config: other.yaml\n", "gives config, which is no option"),
        ("epochs: three\n", "epochs must be a whole number, got 'three'"),
        ("epochs: 1.5\n", "epochs must be a whole number, got 1.5"),
        ("seed: yes\n", "seed must be a whole number, got 'yes'"),
        ("seed: true\n", "seed must be a whole number, got True"),
        ("tensorboard: 0\n", "tensorboard must be true or false, got 0"),
        ("alpha: 0.25\n", "alpha must be a list of 2 numbers, got 0.25"),
        ("student: null\n", "student must be text, got None"),
        ("student: !!python/name:os.system\n", "is no YAML (line 1: could not determine a constructor"),
        ("recipe: 3\n", "recipe must be text, got 3"),
        ("recipe: imagenet\n", "There is no recipe 'imagenet'"),
        ("recipe: {epochs: 3}\n", "The recipe lacks name, batch_size, base_lr: give all of its fields"),
        ("recipe: {speed: 3}\n", "A recipe has no field 'speed'"),
        ("recipe: {name: x, epochs: 0, batch_size: 2, base_lr: 1}\n", "epochs must be above 0"),
        ("options: 3\n", "has no mapping of options under options"),
        ("effective: {}\n", "has no mapping of options under options"),
        ("workers: 0\n", "--workers must be at least 1"),
    ],
)
def test_an_unusable_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    result = command("--config", path)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    with pytest.raises(InputError):
        TrainConfig.from_yaml(path)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    result = command("--config", tmp_path / name)
    assert result.exit_code == 2
    assert "cannot be read (" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read (" in command("--config", tmp_path / "bytes.yaml").stderr


# Control characters are no part of names; PyYAML does not keep all of them.
TEXT = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "))


@given(TEXT, st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: float, whole: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(as_yaml({"text": text, "number": number, "whole": whole}), encoding="utf-8", newline="\n")
    hints = {"text": str, "number": float, "whole": int}
    assert read_options(path, hints) == {"text": text, "number": number, "whole": whole}


@pytest.mark.parametrize(
    "text", ["1e-3", "no", "on", "12:30", "0x10", "010", "null", "~", "true", ".5", "1_000", "2026-11-20"]
)
def test_text_that_looks_like_something_else(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, as_yaml({"text": text}))
    assert read_options(path, {"text": str}) == yaml.safe_load(path.read_text()) == {"text": text}


class TestLabelsAlone:
    """Recipes that train on labels, and what has no meaning then."""

    def test_a_hard_label_recipe_needs_no_flag(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        arguments = ["--recipe", "tinyvit_1k_scratch", *SMALL, "--subset", 2 * BATCH]
        result = command(*arguments)
        assert result.exit_code == 0, result.stderr
        described = yaml.safe_load((tmp_path / f"runs/train/{STUDENT}-digits-labels/run.yaml").read_text())["effective"]
        assert described["targets"] == "hard labels"
        assert (described["view"]["mixup"], described["view"]["cutmix"]) == (0.8, 1.0)
        assert (described["view"]["rand_augment_layers"], described["size"]) == (2, 32)

    def test_size_and_view_of_the_recipe(self, tmp_path: Path) -> None:
        recipe = select_recipe("digits", distillation="none", view="crop_flip", size=48)
        given_by_recipe = config(tmp_path / "run", recipe=recipe, subset=2 * BATCH, epochs=1)
        effective = yaml.safe_load((Path(train(given_by_recipe).out) / "run.yaml").read_text())["effective"]
        assert (effective["size"], effective["view"]["rand_augment_layers"]) == (48, 0)
        flags = config(tmp_path / "flags", recipe=recipe, subset=2 * BATCH, epochs=1, view="tinyvit", size=32)
        effective = yaml.safe_load((Path(train(flags).out) / "run.yaml").read_text())["effective"]
        assert (effective["size"], effective["view"]["rand_augment_layers"]) == (32, 2)

    def test_size_of_the_recipe_with_a_store(self, store: Path, tmp_path: Path) -> None:
        recipe = select_recipe("digits", size=48)
        result = train(config(tmp_path / "run", recipe=recipe, store=str(store), epochs=1))
        effective = yaml.safe_load((Path(result.out) / "run.yaml").read_text())["effective"]
        assert (effective["size"], effective["targets"]) == (48, "store")

    @pytest.mark.parametrize("name", ["tinyvit_21k_to_1k", "tinyvit_1k_scratch", "tinyvit_384", "tinyvit_512"])
    def test_a_store_is_refused_unless_a_loss_is_named(self, name: str) -> None:
        message = f"The recipe {name} trains on labels alone, so --store has no meaning: choose .* --distillation"
        with pytest.raises(InputError, match=message.replace(":", ";")):
            TrainConfig(recipe=name, store="somewhere")
        assert TrainConfig(recipe=name, store="somewhere", distillation="cross_entropy").opens_store
        assert not TrainConfig(recipe=name).opens_store
        assert not TrainConfig(recipe=name, hard_labels_only=True).opens_store

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hard_labels_only": True, "store": "s"}, "--hard-labels-only opens no store, so --store has no meaning"),
            ({"hard_labels_only": True, "joint": "ratio"}, "leaves no loss but that on labels, so --joint has no"),
            ({"hard_labels_only": True, "harmonic_weights": (5.0, 1.0)}, "so --harmonic-weights has no meaning"),
            ({"distillation": "none", "topk": 3}, "--distillation none opens no store, so --topk has no meaning"),
            ({"recipe": "tinyvit_1k_scratch", "shuffle": "shards"}, "trains on labels alone, so --shuffle has no"),
            ({"temperature": 2.0}, "temperature .2. has a meaning with distillation kl only"),
            ({"alpha": (0.0, 0.5)}, "alpha .0:0.5. has a meaning with joint alpha only"),
        ],
    )
    def test_flags_without_a_meaning_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            TrainConfig(**options)

    def test_back_from_labels_to_a_teacher(self, tmp_path: Path) -> None:
        path = written(tmp_path, as_yaml(TrainConfig(hard_labels_only=True).options()))
        assert not TrainConfig.from_yaml(path).opens_store
        assert TrainConfig.from_yaml(path, distillation="cross_entropy", store="s").opens_store

    def test_the_default_recipe(self) -> None:
        assert TrainConfig().effective_recipe().name == "digits"
        assert TrainConfig(data="elsewhere").effective_recipe().name == "tinyvit_1k_distill"


@pytest.mark.parametrize(
    ("flags", "first", "second"),
    [
        (["--alpha", "0.25"], 0.25, 0.25),
        (["--alpha", "0:0.5"], 0.0, 0.5),
    ],
)
def test_alpha_on_the_command_line(flags: list[str], first: float, second: float) -> None:
    context = cli.main.commands["train"].make_context("train", [*flags, "--harmonic-weights", "13:1"])
    assert (context.params["alpha"], context.params["harmonic_weights"]) == ((first, second), (13.0, 1.0))


@pytest.mark.parametrize("flags", [["--alpha", "a"], ["--alpha", "0:1:2"], ["--harmonic-weights", "13"]])
def test_pairs_that_are_none(flags: list[str]) -> None:
    result = command(*flags)
    assert result.exit_code == 2
    assert "two numbers, as in" in result.stderr


HOLD = """
import sys, time
from pathlib import Path
from logitstore.train.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), {}, {})
folder.load(fresh=False)
folder.begin(anew=True)
print("held", flush=True)
time.sleep(60)
"""


class TestOneProcessAFolder:
    """The lock that two runs with one --out meet, with a real second process."""

    @pytest.fixture
    def holder(self, tmp_path: Path) -> Any:
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

    def test_a_run_that_failed_lets_go(self, tmp_path: Path) -> None:
        options = {"hard_labels_only": True, "subset": 2 * BATCH, "ema_decay": None}
        with pytest.raises(ArithmeticError):
            train(config(tmp_path / "run", **options, base_lr=1e30, warmup_epochs=0.0))
        assert train(config(tmp_path / "run", **options)).steps == 4

    def test_what_another_process_did_in_between_is_noticed(self, tmp_path: Path) -> None:
        from logitstore.train.folder import RunFolder

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


class TestWhatDoesNotFit:
    """Notes about a recipe that is used where parts of it have no effect, or an unwanted one."""

    @pytest.fixture
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def test_nothing_to_say(self, model: nn.Module) -> None:
        for name in ("tinyvit_1k_distill", "tinyvit_21k_distill", "swin_framework", "digits"):
            assert misfits(RECIPES[name](), "tiny_vit_21m_224", model, stored=True, initialised=False) == ()
        fine_tuning = RECIPES["tinyvit_384"]()
        assert misfits(fine_tuning, "tiny_vit_21m_384", model, stored=False, initialised=True) == ()
        assert misfits(fine_tuning, "swin_n", nn.Linear(1, 1), stored=False, initialised=False) == ()

    def test_mixing_and_smoothing_with_a_store(self, model: nn.Module) -> None:
        recipe = select_recipe("tinyvit_1k_scratch", distillation="cross_entropy")
        mixing, smoothing = misfits(recipe, "swin_n", model, stored=True, initialised=False)
        assert "Mixup (0.8) and CutMix (1) of the recipe have no effect with a store" in mixing
        assert "Label smoothing (0.1) of the recipe has no effect on a store's targets" in smoothing
        recipe = select_recipe("tinyvit_1k_scratch", distillation="cross_entropy", joint="ratio", mixup=0.0, cutmix=0.0)
        assert misfits(recipe, "swin_n", model, stored=True, initialised=False) == ()

    def test_statistics_that_are_never_learnt(self, model: nn.Module) -> None:
        recipe = RECIPES["tinyvit_21k_to_1k"]()
        (note,) = misfits(recipe, "tiny_vit_5m_224", model, stored=False, initialised=False)
        assert note.startswith("BatchNorm stays in eval mode although the run starts from random weights")
        assert "--init-from" in note

    def test_windows_of_another_size(self, model: nn.Module) -> None:
        recipe = RECIPES["tinyvit_384"]()
        (note,) = misfits(recipe, "tiny_vit_21m_224", model, stored=False, initialised=True)
        assert note == (
            "The recipe tinyvit_384 asks for 384 px; tiny_vit_21m_224 has the windows of 224 px, 7/14/7, and keeps them."
        )

    def test_the_run_says_it(self, tmp_path: Path) -> None:
        flags = ["--hard-labels-only", "--bn-eval", "--subset", BATCH, "--out", tmp_path / "run"]
        result = command(*SMALL, *flags)
        assert result.exit_code == 0, result.stderr
        assert "BatchNorm stays in eval mode although" in result.stderr
