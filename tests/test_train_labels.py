"""Runs on labels alone: which recipes train so, what has no meaning then, and what of a recipe does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from torch import nn
from train_cases import BATCH, STUDENT, config, make_store

import cli
from logitstore.errors import InputError
from logitstore.learning.runfile import as_yaml
from logitstore.train import TrainConfig, train
from logitstore.train.notes import misfits
from logitstore.views import ViewSpec, view_spec
from students.recipes import RECIPES, Recipe, select_recipe

SMALL = ["--student", STUDENT, "--epochs", 1, "--batch-size", BATCH, "--workers", 1, "--no-tensorboard"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


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
        path = tmp_path / "labels.yaml"
        path.write_text(as_yaml(TrainConfig(hard_labels_only=True).options()))
        assert not TrainConfig.from_yaml(path).opens_store
        assert TrainConfig.from_yaml(path, distillation="cross_entropy", store="s").opens_store
        with pytest.raises(InputError, match="trains on labels alone, so --store has no meaning; choose a loss"):
            TrainConfig.from_yaml(path, store="s")

    def test_the_default_recipe(self) -> None:
        assert TrainConfig().effective_recipe().name == "digits"
        assert TrainConfig(data="elsewhere").effective_recipe().name == "tinyvit_1k_distill"


VIEW = view_spec("tinyvit", size=32)


def said(
    recipe: Recipe, student: str, model: nn.Module, view: ViewSpec, *, stored: bool, initialised: bool
) -> tuple[str, ...]:
    """The notes of a run at the view's own size."""
    return misfits(recipe, student, model, view, size=view.size, stored=stored, initialised=initialised)


class TestWhatDoesNotFit:
    """Notes about a recipe that is used where parts of it have no effect, or an unwanted one."""

    @pytest.fixture
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def test_nothing_to_say(self, model: nn.Module) -> None:
        for name in ("tinyvit_1k_distill", "tinyvit_21k_distill", "swin_framework", "digits"):
            assert said(RECIPES[name](), "tiny_vit_21m_224", model, VIEW, stored=True, initialised=False) == ()
        fine_tuning, view = RECIPES["tinyvit_384"](), view_spec("tinyvit", size=384)
        assert said(fine_tuning, "tiny_vit_21m_384", model, view, stored=False, initialised=True) == ()
        assert said(fine_tuning, "swin_n", nn.Linear(1, 1), view, stored=False, initialised=False) == ()

    def test_mixing_and_smoothing_with_a_store(self, model: nn.Module) -> None:
        recipe = select_recipe("tinyvit_1k_scratch", distillation="cross_entropy")
        mixing, smoothing = said(recipe, "swin_n", model, VIEW, stored=True, initialised=False)
        assert "Mixup (0.8) and CutMix (1) of the recipe have no effect with a store" in mixing
        assert "Label smoothing (0.1) of the recipe has no effect on a store's targets" in smoothing
        recipe = select_recipe("tinyvit_1k_scratch", distillation="cross_entropy", joint="ratio", mixup=0.0, cutmix=0.0)
        assert said(recipe, "swin_n", model, VIEW, stored=True, initialised=False) == ()

    def test_labels_without_a_part_in_the_loss(self, model: nn.Module) -> None:
        recipe = select_recipe("digits", joint="alpha")
        (note,) = said(recipe, "swin_n", model, VIEW, stored=True, initialised=False)
        assert "alpha is 0: give --alpha" in note
        recipe = select_recipe("digits", joint="alpha", alpha=(0.0, 0.5))
        assert said(recipe, "swin_n", model, VIEW, stored=True, initialised=False) == ()

    def test_mixing_of_the_recipe_and_of_the_view(self, model: nn.Module) -> None:
        recipe = RECIPES["tinyvit_1k_scratch"]()
        mixed = replace(VIEW, mixup=0.8, cutmix=1.0)
        assert said(recipe, "swin_n", model, mixed, stored=False, initialised=False) == ()
        (note,) = said(recipe, "swin_n", model, replace(VIEW, mixup=0.5), stored=False, initialised=False)
        assert "have no effect: the view spec has its own, Mixup (0.5) and CutMix (0)" in note

    def test_statistics_that_are_never_learnt(self, model: nn.Module) -> None:
        recipe = RECIPES["tinyvit_21k_to_1k"]()
        (note,) = said(recipe, "tiny_vit_5m_224", model, VIEW, stored=False, initialised=False)
        assert note.startswith("BatchNorm stays in eval mode although the run starts from random weights")
        assert "--init-from" in note

    @pytest.mark.parametrize(
        ("student", "size", "note"),
        [
            ("tiny_vit_21m_224", 384, "tiny_vit_21m_224 has the windows of 224 px, 7/14/7, and keeps them."),
            (
                "tiny_vit_21m_512", 384,
                "tiny_vit_21m_512 has the windows of 512 px, 16/32/16, cut to its maps: 16/24/12.",
            ),
            (
                "tiny_vit_21m_224", 32,
                "the views have 32 px; tiny_vit_21m_224 has the windows of 224 px, 7/14/7, cut to its maps: "
                "4/2/1.",
            ),
            ("tiny_vit_21m_224", 224, "the views have 224 px."),
            ("swin_n", 224, "the views have 224 px."),
        ],
    )  # fmt: skip
    def test_another_size_than_the_recipes(self, student: str, size: int, note: str, model: nn.Module) -> None:
        recipe, view = RECIPES["tinyvit_384"](), view_spec("tinyvit", size=size)
        notes = said(recipe, student, model, view, stored=False, initialised=True)
        assert notes == (f"The recipe tinyvit_384 asks for 384 px; {note}",)

    def test_a_store_of_another_size_than_the_run(self, model: nn.Module) -> None:
        recipe = RECIPES["tinyvit_384"]()
        dumped = view_spec("tinyvit", size=224)
        assert misfits(recipe, "tiny_vit_21m_384", model, dumped, size=384, stored=True, initialised=True) == ()
        dumped = view_spec("tinyvit", size=384)
        (note,) = misfits(recipe, "swin_n", model, dumped, size=224, stored=True, initialised=True)
        assert note == "The recipe tinyvit_384 asks for 384 px; the views have 224 px."

    def test_the_run_says_it(self, tmp_path: Path) -> None:
        flags = ["--hard-labels-only", "--bn-eval", "--subset", BATCH, "--out", tmp_path / "run"]
        result = command(*SMALL, *flags)
        assert result.exit_code == 0, result.stderr
        assert "BatchNorm stays in eval mode although" in result.stderr
