"""Run files: what repeats a run to the byte, what overrides, what is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from train_cases import BATCH, STUDENT, make_store

import cli
from logitstore.errors import InputError
from logitstore.learning.runfile import as_yaml, read_options
from logitstore.train import TrainConfig
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

    def test_the_strong_baseline_of_a_distilled_run(self, first: Path, tmp_path: Path) -> None:
        """A recipe on labels instead of the file's: what the file says about its teacher falls away likewise."""
        scratch = TrainConfig.from_yaml(first / "run.yaml", recipe="tinyvit_1k_scratch", out=str(tmp_path / "s"))
        assert scratch.store is None and not scratch.opens_store
        assert scratch.effective_recipe() == RECIPES["tinyvit_1k_scratch"]()
        assert (scratch.seed, scratch.workers, scratch.student) == (5, 1, STUDENT)
        other = TrainConfig.from_yaml(first / "run.yaml", recipe="tinyvit_1k_distill")
        assert other.store is not None and other.effective_recipe() == RECIPES["tinyvit_1k_distill"]()
        with pytest.raises(InputError, match="--store has no meaning"):
            TrainConfig.from_yaml(first / "run.yaml", recipe="tinyvit_1k_scratch", store="here")
        with pytest.raises(InputError, match="There is no recipe 'imagenet'"):
            TrainConfig.from_yaml(first / "run.yaml", recipe="imagenet")


def sample_of(hint: Any) -> Any:
    """Another value than the default's for a field of this type."""
    values = {"tuple": (0.5, 0.25), "bool": True, "int": 8, "float": 0.25, "str": "x"}
    return next(value for kind, value in values.items() if kind in str(hint))


def test_every_field_goes_through_a_run_file(tmp_path: Path) -> None:
    special = {"recipe": "swin_framework", "shuffle": "shards", "joint": "alpha", "distillation": "kl"}
    special |= {"store": ("one", "two"), "weights": (0.5, 0.25), "match": ("3:5", "1:1")}
    special |= {"student_args": ("depth=2",), "share": "all"}
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


@pytest.mark.parametrize(("text", "pair"), [("0.25", (0.25, 0.25)), ("1", (1.0, 1.0)), ("[0, 0.5]", (0.0, 0.5))])
def test_alpha_is_fixed_or_goes_from_one_value_to_another(
    text: str, pair: tuple[float, float], tmp_path: Path
) -> None:
    read = TrainConfig.from_yaml(written(tmp_path, f"joint: alpha\nalpha: {text}\n"))
    assert read.effective_recipe().alpha == pair
    assert TrainConfig(joint="alpha", alpha=pair).options() == read.options()


def test_a_fixed_alpha_from_python() -> None:
    assert TrainConfig(joint="alpha", alpha=0.25).effective_recipe().alpha == (0.25, 0.25)
    with pytest.raises(InputError, match=r"alpha must lie in \[0, 1\], got 2"):
        TrainConfig(joint="alpha", alpha=2)


def test_a_transform_that_the_user_names_too(tmp_path: Path) -> None:
    path = written(tmp_path, "view: my_views:corner\n")
    assert TrainConfig.from_yaml(path, view="my_views:corner").view == "my_views:corner"


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
        ("alpha: [0.25]\n", "alpha must be a number or a list of 2 numbers, got [0.25]"),
        ("betas: 0.9\n", "betas must be a list of 2 numbers, got 0.9"),
        ("seed: 1\nstudent: swin_n\nseed: 1\n", "written.yaml gives seed twice, on lines 1 and 3: leave one out."),
        ("recipe: {name: x,\n name: y}\n", "written.yaml gives name twice, on lines 1 and 2: leave one out."),
        ("base_lr: 1\nbase-lr: 2\n", "written.yaml gives base_lr twice, with - and with _: leave one out."),
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
        ("seed: -1\n", "--seed must be at least 0, got -1."),
        ("view: os:system\n", "asks for views by the transform os:system; code is never imported on a file's word"),
        ("recipe: {name: x, epochs: 1, batch_size: 2, base_lr: 1, view: 'os:system'}\n", "by the transform os:system"),
    ],
)
def test_an_unusable_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    result = command("--config", path)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    with pytest.raises(InputError):
        TrainConfig.from_yaml(path)


@pytest.mark.parametrize(
    ("name", "message"), [("absent.yaml", "cannot be read (No such file or directory)"), (".", "is a folder: give a")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    result = command("--config", tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read (it is no text)" in command("--config", tmp_path / "bytes.yaml").stderr


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


def test_the_help_says_what_alpha_weights() -> None:
    """In other papers it weights the teacher."""
    text = " ".join(command("--help").output.split())
    assert "Weight of the HARD-LABEL loss in (1-alpha)*L_d + alpha*L_s" in text


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--alpha", "a", "'a' is not a number or two numbers, as in 0:0.5."),
        ("--alpha", "0:1:2", "'0:1:2' is not a number or two numbers, as in 0:0.5."),
        ("--harmonic-weights", "13", "'13' is not two numbers, as in 13:1."),
        ("--betas", "0.9", "'0.9' is not two numbers, as in 0.9:0.999."),
    ],
)
def test_pairs_that_are_none(flag: str, value: str, message: str) -> None:
    result = command(flag, value)
    assert result.exit_code == 2
    assert message in result.stderr
    example = message.split()[-1].rstrip(".")
    assert cli.main.commands["train"].make_context("train", [flag, example])
