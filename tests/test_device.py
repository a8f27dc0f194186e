"""Devices, precisions, normalisation, and randomness that leaves torch's own alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from logitstore.device import autocast, dtype_name, normalise, require_runs, resolve_device, resolve_dtype, seeded
from logitstore.errors import InputError, ModelError

CPU = torch.device("cpu")


def test_names_of_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device(None).type == resolve_device("auto").type
    for name in ("gpu", "cuda:99", "meteor"):
        with pytest.raises(InputError, match=name):
            resolve_device(name)


def test_names_of_dtypes() -> None:
    assert resolve_dtype(None, CPU) == resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("bf16", CPU) == resolve_dtype(torch.bfloat16, CPU) == torch.bfloat16
    assert dtype_name(torch.float16) == "float16"
    with pytest.raises(InputError, match="float8"):
        resolve_dtype("float8", CPU)


def test_autocast_only_below_float32() -> None:
    product = {}
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(CPU, dtype):
            product[dtype] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert product == {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16}


def test_normalise_is_the_plain_formula_and_leaves_the_views() -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 3, 5, 5), np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    before = views.copy()
    found = normalise(torch.from_numpy(views), mean, std, CPU).numpy()
    wanted = (views / 255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    np.testing.assert_array_equal(views, before)


def test_normalise_serves_training_after_inference_and_one_model_after_another() -> None:
    views = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    with torch.inference_mode():
        first = normalise(views, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), CPU)
    layer = torch.nn.Conv2d(3, 1, 2)
    layer(normalise(views, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], CPU)).sum().backward()
    assert layer.weight.grad is not None and torch.equal(layer.weight.grad, first)
    other = normalise(views, (0.3, 0.2, 0.1), (0.4, 0.5, 0.6), CPU)
    assert torch.equal(other[:, 1], first[:, 1]) and not torch.equal(other[:, 0], first[:, 0])


def test_a_trial_leaves_the_model_as_it_was() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    require_runs(model, 2, name="model")
    assert model.training and all(map(torch.equal, before.values(), model.state_dict().values()))
    with pytest.raises(ModelError, match=r"model does not run on images of 3 px \(RuntimeError: .*--size"):
        require_runs(model.eval(), 3, name="model")
    assert not model.training and torch.equal(state, torch.get_rng_state())


def test_seeded_is_a_function_of_its_words() -> None:
    def draw(*words: int) -> list[float]:
        with seeded(CPU, *words):
            return torch.rand(3).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(*words)) for words in [(1, 2), (2, 1), (1,), (1, 2, 0), (1 << 40, 2)]}) == 5


def test_seeded_leaves_torchs_generator() -> None:
    before = torch.get_rng_state()
    with seeded(CPU, 7):
        torch.rand(5)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(RuntimeError), seeded(CPU, 7):
        raise RuntimeError
    assert torch.equal(before, torch.get_rng_state())
