"""The contraction factors of a model, its parameters, and the space of models below it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract_cases import factors_of
from torch import nn

from logitstore.views import Rng
from students import build_arguments, create_student, parse_arguments
from students.contract import Factors, Space, count_parameters, published_factors, published_name


class TestFactors:
    @pytest.mark.parametrize(
        ("name", "parameters"), [("5m_224", 5_392_764), ("11m_224", 10_996_972), ("21m_224", 21_198_568)]
    )
    def test_published_models_count_as_published(self, name: str, parameters: int) -> None:
        assert count_parameters(factors_of(name), 1000) == parameters

    @pytest.mark.parametrize(
        ("name", "size", "parameters"), [("21m_384", 384, 21_230_488), ("21m_512.dist", 512, 21_268_120)]
    )
    def test_larger_windows_count_too(self, name: str, size: int, parameters: int) -> None:
        assert count_parameters(factors_of(name, size), 1000) == parameters

    @pytest.mark.parametrize(("size", "classes"), [(32, 10), (96, 100), (224, 1000)])
    def test_any_model_of_the_space_is_made_and_counted(self, size: int, classes: int) -> None:
        space, rng = Space(start=factors_of("21m_224", size), size=size), Rng(size)
        for _ in range(4):
            point = tuple(rng.integers(0, len(axis.values)) for axis in space.axes)
            if not space.allows(point):
                point = (*(0,) * 4, *point[4:])
            factors = space.model(point)
            arguments = parse_arguments(factors.student_args())
            assert arguments == factors.model_args()
            with torch.device("meta"):
                model: nn.Module = create_student(
                    "tinyvit_21m", num_classes=classes, size=size,
                    model_args=build_arguments("tinyvit_21m", size, arguments),
                )  # fmt: skip
            assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(factors, classes)
            heads = [module.num_heads for module in model.modules() if type(module).__name__ == "Attention"]
            assert heads == [heads for heads, depth in list(zip(factors.heads, factors.depths, strict=True))[1:]
                             for _ in range(depth)]  # fmt: skip

    def test_through_json(self) -> None:
        factors = factors_of("11m_224", 96)
        assert Factors.from_dict(factors.to_dict()) == factors
        with pytest.raises(ValueError, match="Factors have the fields"):
            Factors.from_dict({"widths": [1, 2, 3, 4]})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"widths": (96, 192, 384, 580)}, "multiples of the head dimension"),
            ({"widths": (95, 192, 384, 576)}, "first width must be even"),
            ({"widths": (96, 192, 384)}, "has 4 widths"),
            ({"depths": (2, 2, 0, 2)}, "4 depths of at least 1"),
            ({"windows": (7, 7, 14, 7)}, "has 3 windows"),
            ({"mlp_ratio": 0.0}, "Ratios must leave channels"),
        ],
    )
    def test_what_is_no_model_is_refused(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            replace(factors_of("21m_224"), **changes)  # type: ignore[arg-type]

    def test_names_of_the_published(self) -> None:
        for millions in (5, 11, 21):
            for size in (32, 224, 256):
                factors = factors_of(f"{millions}m_224", size)
                assert published_name(factors, "tiny_vit_21m_224.in1k", size) == f"tinyvit_{millions}m"
        assert published_name(replace(factors_of("11m_224"), mlp_ratio=3.5), "tiny_vit_21m_224", 224) is None
        assert published_name(factors_of("11m_224"), "tiny_vit_21m_384", 384) is None, "other windows"
        assert published_factors("swin_tiny_patch4_window7_224", 224) is None


class TestSpace:
    @pytest.mark.parametrize("size", [32, 96, 224, 256])
    def test_the_published_lie_inside(self, size: int) -> None:
        space = Space(start=factors_of("21m_224", size), size=size)
        for name in ("5m_224", "11m_224", "21m_224"):
            factors = factors_of(name, size)
            assert factors in space
            assert space.model(space.point(factors)) == factors
        assert replace(space.start, depths=(2, 2, 7, 2)) not in space, "deeper than the start"
        assert Factors(widths=(96, 192, 160, 576)) not in space, "shrinks from stage to stage"
        assert "a model" not in space

    def test_the_values_of_each_factor(self) -> None:
        values = {
            (axis.factor, axis.place): axis.values for axis in Space(start=factors_of("21m_224"), size=224).axes
        }
        assert values["widths", 0] == (16, 32, 48, 64, 80, 96)
        assert values["widths", 2] == tuple(range(32, 385, 32))
        assert values["depths", 2] == (1, 2, 3, 4, 5, 6)
        assert values["windows", 1] == (2, 3, 4, 5, 7, 14), "a map of 14 in 1, 2, 3, 4, 5 and 7 parts"
        assert values["mlp_ratio", None] == (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
        assert values["head_dim", None] == (8, 16, 32)
        assert {factor for factor, _ in values} == {
            "widths", "depths", "windows", "mbconv_ratio", "mlp_ratio", "head_dim"
        }  # fmt: skip

    def test_neighbours_differ_by_a_notch_of_one_factor_and_are_models(self) -> None:
        space = Space(start=factors_of("21m_224"), size=224)
        centre = space.point(factors_of("11m_224"))
        found = list(space.neighbours(centre))
        assert len(found) > 15
        for factor, point in found:
            (place,) = (i for i, (one, other) in enumerate(zip(centre, point, strict=True)) if one != other)
            assert abs(point[place] - centre[place]) == 1 and space.axes[place].factor == factor
            assert space.model(point) in space
        assert all(sum(point) < sum(centre) for _, point in space.neighbours(centre, directions=(-1,)))
        assert not list(space.neighbours((0,) * len(centre), directions=(-1,)))
