"""View specs: what is accepted, what is refused and in which words; files, transforms, the user's own generator."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from logitstore import views
from logitstore.errors import InputError, ViewError
from logitstore.jit import kernel
from logitstore.views import OPERATIONS, Renderer, Rng, ViewSpec, check_transform, crc32c, spec, view_spec, witness
from tests.view_cases import decoded, recipes


@pytest.mark.parametrize("name", recipes(40))
def test_dictionary_round_trip(name: str) -> None:
    original = recipes(40)[name]
    assert ViewSpec.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_every_field_is_documented() -> None:
    (body,) = (n.body for n in ast.parse(inspect.getsource(spec)).body if getattr(n, "name", "") == "ViewSpec")
    for field, sentence in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(sentence, ast.Expr), ast.unparse(field)
            assert isinstance(sentence.value, ast.Constant), ast.unparse(field)


def test_numbers_and_lists_are_unified() -> None:
    one = ViewSpec(size=32, hflip=1, scale=[0.5, 1], fill=[1, 2, 3])  # type: ignore[arg-type]
    other = ViewSpec(size=32, hflip=1.0, scale=(0.5, 1.0), fill=(1, 2, 3))
    assert one == other
    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())


REFUSED = {
    "unknown": ({"blur": 1}, 'no field "blur"; it has size, scale'),
    "no size": ({"size": None}, "size must be a whole number"),
    "half size": ({"size": 31.5}, "size must be a whole number, got 31.5"),
    "size 0": ({"size": 0}, "size must lie in"),
    "bool": ({"hflip": True}, "hflip must be a number, got True"),
    "string": ({"mixup": "1e-1"}, "mixup must be a number, got '1e-1'"),
    "nan": ({"mixup": float("nan")}, "mixup must be a number"),
    "probability": ({"erasing_prob": 1.5}, "erasing_prob must lie in"),
    "order": ({"scale": [1.0, 0.5]}, "scale must be two numbers"),
    "zero area": ({"scale": [0.0, 0.5]}, "scale must be two numbers"),
    "length": ({"fill": [1, 2]}, "fill must have 3 entries"),
    "not a list": ({"fill": "grey"}, "fill must be a list"),
    "colour": ({"fill": [0, 0, 256]}, "fill must lie in"),
    "operation": ({"rand_augment_ops": ["Invert", "Blur"]}, "rand_augment_ops must name some of AutoContrast"),
    "no operation": ({"rand_augment_ops": []}, "got nothing"),
    "alpha": ({"cutmix": 9}, "cutmix must be 0 .off. or lie in"),
    "interpolation": ({"interpolation": "nearest"}, 'must be "bicubic", got "nearest"'),
    "transform": ({"transform": "no colon"}, "must read module:function"),
    "version": ({"version": 2}, "has version 2, and this logitstore renders version 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_fields(case: str) -> None:
    values, message = REFUSED[case]
    with pytest.raises(ViewError, match=message):
        ViewSpec.from_dict({"size": 32} | values)


def test_size_is_required() -> None:
    with pytest.raises(ViewError, match="needs the field size"):
        ViewSpec.from_dict({"hflip": 0.5})


def test_named_specs() -> None:
    tinyvit = view_spec("tinyvit", size=224)
    assert (tinyvit.rand_augment_layers, tinyvit.rand_augment_magnitude, tinyvit.rand_augment_std) == (2, 9.0, 0.5)
    assert (tinyvit.erasing_prob, tinyvit.color_jitter, tinyvit.mixes) == (0.25, (0.0, 0.0, 0.0), False)
    assert tinyvit.rand_augment_ops == OPERATIONS and len(set(OPERATIONS)) == 15
    assert view_spec("crop_flip", size=32) == ViewSpec(size=32)
    with pytest.raises(ViewError, match=r'no view "randaug"; use tinyvit, crop_flip, the path of a YAML file'):
        view_spec("randaug", size=32)


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: tinyvit\nmixup: 0.8\ncutmix: 1\nscale: [0.2, 1]\n")
    assert view_spec(str(path), size=96) == replace(
        view_spec("tinyvit", size=96), mixup=0.8, cutmix=1.0, scale=(0.2, 1.0)
    )
    path.write_text("size: 64\n")
    assert view_spec(str(path), size=96) == ViewSpec(size=64)
    path.write_text("")
    assert view_spec(str(path), size=96) == ViewSpec(size=96)


YAML_REFUSED = {
    "mixup_alpha: 1": 'mine.yaml: A view spec has no field "mixup_alpha"',
    "[1, 2]": "must be a mapping",
    "3: 4": "must be a mapping",
    "a: [": "cannot be read",
    "base: nothing": 'has base "nothing"; use tinyvit',
    "base: {a: 1}": "has base .*; use tinyvit",
    "transform: os:getcwd": "give it on the command line",
}


@pytest.mark.parametrize("text", YAML_REFUSED)
def test_yaml_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ViewError, match=YAML_REFUSED[text]):
        view_spec(str(path), size=96)


def test_yaml_absent(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="cannot be read"):
        view_spec(str(tmp_path / "absent.yaml"), size=96)


TRANSFORMS = """
import numpy as np

count = 0

def good(image, rng):
    size = 16
    top, left = rng.integers(0, image.shape[0] - size + 1), rng.integers(0, image.shape[1] - size + 1)
    view = image[top : top + size, left : left + size]
    return np.ascontiguousarray((view if rng.random() < 0.5 else view[:, ::-1]).transpose(2, 0, 1))

def random_elsewhere(image, rng):
    return np.random.default_rng().integers(0, 256, (3, 16, 16), dtype=np.uint8)

def stateful(image, rng):
    global count
    count += 1
    return np.full((3, 16, 16), count % 251, np.uint8)

def wrong_shape(image, rng):
    return image[:16, :16]

def wrong_type(image, rng):
    return np.zeros((3, 16, 16), np.float32)

def nothing(image, rng):
    return None

def raising(image, rng):
    raise KeyError("oops")

def changing(image, rng):
    image[0, 0] = 0
    return np.zeros((3, 16, 16), np.uint8)

value = 3
"""


@pytest.fixture
def transforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "view_transforms.py").write_text(TRANSFORMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "view_transforms", raising=False)
    monkeypatch.setattr("logitstore.views.custom._named_by_user", {})
    return "view_transforms"


def test_own_transform(transforms: str) -> None:
    own = view_spec(f"{transforms}:good", size=16)
    images = [decoded("photo.jpg"), decoded("grey.png")]
    asked: list[int] = []
    check_transform(own, (asked.append(i) or images[i % 2] for i in range(1000)))
    assert asked == [*range(8)]
    renderer = Renderer(own)
    views = np.stack([renderer.render(images[0], seed) for seed in range(20)])
    assert views.shape == (20, 3, 16, 16)
    assert len({view.tobytes() for view in views}) > 10
    np.testing.assert_array_equal(views[7], renderer.render(images[0], 7))


TRANSFORMS_REFUSED = {
    "random_elsewhere": "gave two different views of image 0 for seed 1",
    "stateful": "gave two different views",
    "wrong_shape": r"returned uint8 \[16, 16, 3\]; it must return uint8 \[3, 16, 16\]",
    "wrong_type": "returned float32",
    "nothing": "returned NoneType",
    "raising": "raised KeyError: 'oops'",
    "changing": "changed the image",
}


@pytest.mark.parametrize("function", TRANSFORMS_REFUSED)
def test_own_transform_refused(function: str, transforms: str) -> None:
    own = view_spec(f"{transforms}:{function}", size=16)
    with pytest.raises(ViewError, match=TRANSFORMS_REFUSED[function]):
        check_transform(own, [decoded("photo.jpg"), decoded("grey.png")])


def test_own_transform_absent(transforms: str) -> None:
    with pytest.raises(ViewError, match="no_such_module:f cannot be imported: ModuleNotFoundError"):
        view_spec("no_such_module:f", size=16)
    for name in ("absent", "value"):
        with pytest.raises(ViewError, match=f"has no function {name}"):
            view_spec(f"{transforms}:{name}", size=16)


def test_code_is_never_imported_on_a_manifests_word(transforms: str) -> None:
    stored = ViewSpec(size=16, transform=f"{transforms}:good").to_dict()
    with pytest.raises(ViewError, match=f"name it yourself: --view {transforms}:good"):
        Renderer(ViewSpec.from_dict(stored))
    assert transforms not in sys.modules
    view_spec(f"{transforms}:good", size=16)
    Renderer(ViewSpec.from_dict(stored))


def test_specs_without_transform_pass_the_check() -> None:
    check_transform(view_spec("tinyvit", size=16), map(decoded, ["absent.png"]))  # which is not asked for


def test_renderer_refuses_other_arrays() -> None:
    renderer = Renderer(view_spec("crop_flip", size=16))
    image, view = decoded("photo.jpg"), np.empty((3, 16, 16), np.uint8)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0], image[..., :2]):
        with pytest.raises(ViewError, match=r"An image must be uint8 \[H, W, 3\]"):
            renderer.render_into(wrong, 0, view)
    for memory in (view.astype(np.int16), view[:, :8], np.empty((16, 16, 3), np.uint8).transpose(2, 0, 1)):
        with pytest.raises(ViewError, match=r"C-contiguous uint8 \[3, 16, 16\]"):
            renderer.render_into(image, 0, memory)


def test_rng_is_a_function_of_its_seed() -> None:
    first, second, other = Rng(5), Rng(5), Rng(6)
    assert [first.bits() for _ in range(5)] == [second.bits() for _ in range(5)] != [other.bits() for _ in range(5)]
    draws = [Rng(seed).integers(-3, 4) for seed in range(500)]
    assert set(draws) == set(range(-3, 4))
    assert all(2.0 <= Rng(seed).uniform(2.0, 2.5) < 2.5 for seed in range(50))
    normals = [Rng(seed).normal(10.0, 2.0) for seed in range(2000)]
    assert abs(np.mean(normals) - 10.0) < 0.2 and abs(np.std(normals) - 2.0) < 0.2
    items = list(range(10))
    Rng(1).shuffle(items)
    assert sorted(items) == list(range(10)) != items
    assert Rng(2).choice("abc") in "abc"
    with pytest.raises(InputError, match="needs low < high"):
        Rng(0).integers(3, 3)


def test_witness_is_crc32c_of_c_order() -> None:
    assert witness(np.frombuffer(b"123456789", np.uint8).reshape(3, 3, 1)) == 0xE3069283
    view = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert crc32c(view.transpose(1, 2, 0)) == crc32c(np.ascontiguousarray(view.transpose(1, 2, 0))) != crc32c(view)


def test_describing_views_loads_no_numba() -> None:
    code = "import sys, logitstore.views as v; v.view_spec('tinyvit', size=8); print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_exported_names_resolve() -> None:
    for name in views.__all__:
        assert getattr(views, name) is not None
    assert callable(views.witness) and dir(views) == sorted(views.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = views.nonsense


def test_kernels_compile_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cache(*, cache: bool = False, **options: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return njit(**options)(function)

        return compiled

    monkeypatch.setattr("logitstore.jit.njit", without_cache)
    assert kernel(lambda x: x + 1)(2) == 3


def test_fields_are_the_known_ones() -> None:
    assert list(ViewSpec(size=8).to_dict()) == [field.name for field in fields(ViewSpec)]
