"""``models``: figures that agree with the papers', a reference count by hand, and speed that is measured."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from timm.models import register_model
from torch import Tensor, nn

import cli
from logitstore.catalogue import DEFAULT_MODELS, ModelFigures, ModelsConfig, count, list_models
from logitstore.errors import InputError, ModelError
from logitstore.published import PUBLISHED

PARAMETERS = {
    "swin_n": 20_490_286,
    "swin_m": 24_043_270,
    "swin_t": 27_596_254,
    "swin_s": 48_914_158,
    "swin_b": 86_845_724,
    "tinyvit_5m": 5_392_764,
    "tinyvit_11m": 10_996_972,
    "tinyvit_21m": 21_198_568,
    "tinyvit_21m_384": 21_230_488,
    "tinyvit_21m_512": 21_268_120,
    "mini_swin_t": 12_001_765,
    "mini_swin_s": 26_463_205,
    "mini_swin_b": 46_444_852,
    "mini_deit_ti": 3_090_304,
    "mini_deit_s": 11_450_824,
    "mini_deit_b": 44_098_408,
}


@pytest.fixture(scope="module")
def listed() -> dict[str, ModelFigures]:
    return {figures.name: figures for figures in list_models(ModelsConfig()).models}


def test_the_papers_models_are_listed_at_their_own_size(listed: dict[str, ModelFigures]) -> None:
    assert tuple(listed) == DEFAULT_MODELS
    assert {name: listed[name].parameters for name in PARAMETERS} == PARAMETERS
    assert {listed[name].size for name in DEFAULT_MODELS} == {224, 384, 512}


def test_figures_agree_with_what_papers_print(listed: dict[str, ModelFigures]) -> None:
    """To the rounding of the papers, or 1%: the counters differ in what they leave out."""
    compared = 0
    for figures in listed.values():
        for published in figures.published or ():
            ours = (figures.parameters / 1e6, figures.macs / 1e9)
            for own, printed in zip(ours, (published.parameters, published.macs), strict=True):
                if printed is not None:
                    compared += 1
                    assert abs(own - printed) <= max(0.0501, 0.01 * printed), (figures.name, own, printed)
    assert compared == 5 + 9 + 2 * 6


@pytest.mark.parametrize(
    ("options", "sources"),
    [
        ({"names": ("swin_t",)}, ["Swin framework, Table X", "TinyViT, Table 4"]),
        ({"names": ("swin_t",), "num_classes": 100, "size": 224}, ["Swin framework, Table X", "TinyViT, Table 4"]),
        ({"names": ("swin_t",), "num_classes": 1000}, ["TinyViT, Table 4"]),
        ({"names": ("swin_t.ms_in1k",), "num_classes": 1000}, ["TinyViT, Table 4"]),
        ({"names": ("swin_t",), "num_classes": 10}, None),
        ({"names": ("swin_t",), "size": 64}, None),
        ({"names": ("swin_n",), "num_classes": 1000}, None),
        ({"names": ("tinyvit_21m",), "size": 384}, None),
        ({"names": ("tinyvit_21m_384",)}, ["TinyViT, Table 4"]),
        ({"names": ("deit_ti",)}, []),
    ],
)
def test_published_figures_stand_beside_their_own_setting_alone(
    options: dict[str, Any], sources: list[str] | None
) -> None:
    result = list_models(ModelsConfig(**options))
    published = result.models[0].published
    assert (None if published is None else [row.source for row in published]) == sources
    assert [name in result.table()["models"][0]["published"] for name in sources or ()] == [True] * len(sources or ())
    assert sources or result.table()["models"][0]["published"] == ""


def test_every_published_row_is_of_a_listed_model_and_says_where_it_is_from(listed: dict[str, ModelFigures]) -> None:
    assert set(PUBLISHED) <= {figures.timm_name for figures in listed.values()}
    for published in (row for rows in PUBLISHED.values() for row in rows):
        assert published.source
        assert (published.images_per_second is None) == (published.hardware is None)


@pytest.mark.parametrize(("name", "width", "depth"), [("deit_ti", 192, 12), ("deit_s", 384, 12)])
@pytest.mark.parametrize(("size", "num_classes"), [(224, 1000), (64, 10)])
def test_macs_of_a_vit_counted_by_hand(name: str, width: int, depth: int, size: int, num_classes: int) -> None:
    patches = (size // 16) ** 2
    tokens = patches + 1
    linear = 12 * tokens * width**2  # queries, keys, values: 3; projection: 1; MLP: 8
    attention = 2 * tokens**2 * width
    by_hand = patches * 3 * 16**2 * width + depth * (linear + attention) + width * num_classes
    assert count(name, num_classes=num_classes, size=size)[1] == by_hand


def test_macs_of_convolutions_counted_by_hand() -> None:
    """A grouped convolution multiplies within its groups only."""

    @register_model
    def two_convolutions(pretrained: bool = False, num_classes: int = 5, **_: Any) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
        )  # fmt: skip

    parameters, macs = count("two_convolutions", num_classes=5, size=16)
    assert parameters == (3 * 8 * 9 + 8) + (8 * 9 + 8) + (8 * 5 + 5)
    assert macs == 64 * (3 * 8 * 9) + 64 * (8 * 9) + 8 * 5


def test_a_model_that_reads_values_is_counted_too() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, images_BCHW: Tensor) -> Tensor:
            scale = float(images_BCHW.amax())  # there is no such value where only shapes are followed
            return self.head(images_BCHW.mean((2, 3)) * scale)

    @register_model
    def reading_values(pretrained: bool = False, **_: Any) -> nn.Module:
        return Reading()

    assert count("reading_values", num_classes=4, size=8) == (16, 12)


def test_classes_and_size_are_taken_as_asked() -> None:
    (figures,) = list_models(ModelsConfig(names=("swin_n",), num_classes=10, size=64)).models
    model = timm.create_model("swin_n", num_classes=10, img_size=64)
    assert figures.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (figures.size, figures.num_classes, figures.images_per_second) == (64, 10, None)
    assert list_models(ModelsConfig(names=("tinyvit_21m_384",))).models[0].size == 384


def test_patterns_name_several_models_once_each() -> None:
    listed = list_models(ModelsConfig(names=("deit_t*", "test_vit?", "deit_ti"), size=32)).models
    assert [figures.name for figures in listed] == ["deit_t", *timm.list_models("test_vit?"), "deit_ti"]


def test_the_generator_is_left_alone_and_speed_is_measured() -> None:
    before = torch.random.get_rng_state()
    result = list_models(ModelsConfig(names=("test_vit",), measure=True, size=32, batch_size=2, device="cpu"))
    assert torch.equal(before, torch.random.get_rng_state())
    rate = result.models[0].images_per_second
    assert rate is not None and 10 < rate < 1e6
    assert result.measured == {
        "batch_size": 2, "device": "cpu", "dtype": "float32", "threads": torch.get_num_threads()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"names": ("no_such_model",)}, ModelError, "no model called no_such_model"),
        ({"names": ("no_such_*",)}, InputError, r"No model's name fits no_such_\*"),
        ({"names": ("swin_n",), "size": 1}, ModelError, "1 px"),
        ({"device": "abacus"}, InputError, "Device abacus"),
        ({"batch_size": 0}, InputError, "--batch-size must be at least 1"),
    ],
)
def test_unusable_input(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        list_models(ModelsConfig(**options))


def test_the_command_prints_a_table_or_json() -> None:
    text = CliRunner().invoke(cli.main, ["models", "deit_s", "swin_n"])
    assert text.exit_code == 0
    lines = text.stdout.splitlines()
    assert lines[0] == "models:" and lines[1].split()[:3] == ["model", "timm", "px"]
    assert "22,050,664" in lines[2] and "2276 img/s (TinyViT, Table 4; V100)" in lines[2]
    assert "20,490,286" in lines[3] and "hardware not given" in lines[3]
    report = json.loads(CliRunner().invoke(cli.main, ["models", "deit_s", "--json"]).stdout)
    assert report["measured"] is None
    assert (report["models"][0]["parameters"], report["models"][0]["macs"]) == (22_050_664, 4_598_882_304)
