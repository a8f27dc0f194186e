"""The Triton kernels of the losses against the plain form in float64; run by ``test_losses_kernels``.

On a GPU where there is one and TRITON_INTERPRET is not set, else interpreted on the CPU.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
import torch
from loss_cases import PADDING, make_records, random_logits
from torch import Tensor

from logitstore.losses import kernels, one_pass, soft_target_cross_entropy, tempered_kl

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") else "cuda")


@pytest.fixture(autouse=True)
def on_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public losses take the kernels for float32 and bfloat16 on a CPU, too."""
    monkeypatch.setattr(one_pass, "loss_and_gradient", kernels.loss_and_gradient)
    monkeypatch.setattr(one_pass, "scaled", kernels.scale_)


def logits(seed: int, batch: int, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return random_logits(seed, batch, classes).detach().to(DEVICE, dtype).requires_grad_()


def records(seed: int, batch: int, topk: int, classes: int, *, pad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    index_BK, prob_BK, tail_B = make_records(seed, batch, topk, classes, pad=pad)
    return index_BK.to(DEVICE), prob_BK.to(DEVICE), tail_B.to(DEVICE)


def both_forms(
    logits_BC: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    *,
    temperature: float | None = None,
    factor: float = 1.0,
    **options,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and gradient by the kernels, and by the plain form of the same logits in float64."""
    function = soft_target_cross_entropy if temperature is None else partial(tempered_kl, temperature=temperature)
    exact_BC = logits_BC.detach().double().requires_grad_()
    expected = function(exact_BC, *kept, weight_B=options.get("weight_B"))
    (expected_BC,) = torch.autograd.grad(expected * factor, exact_BC)
    found = function(logits_BC, *kept, **options)
    (found_BC,) = torch.autograd.grad(found * factor, logits_BC)
    assert found.dtype == torch.float32 and found_BC.dtype == logits_BC.dtype
    return found.detach(), found_BC, expected.detach(), expected_BC


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [None, 4.0])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("batch", "topk", "classes"),
    [(1, 1, 2), (3, 2, 2), (4, 5, 21), (2, 300, 300), (2, 100, 4096), (2, 300, 9001)],
    ids=lambda value: str(value),
)
def test_loss_and_gradient(batch, topk, classes, overwrite, temperature, dtype):
    logits_BC = logits(batch, batch, classes, dtype)
    found, found_BC, expected, expected_BC = both_forms(
        logits_BC,
        records(7, batch, topk, classes, pad=topk < classes),
        temperature=temperature,
        overwrite=overwrite,
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=2e-6 * (temperature or 1) ** 2)
    rounding = 2e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=rounding, atol=1e-7)
    assert (found_BC.data_ptr() == logits_BC.data_ptr()) == overwrite


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_classes_as_a_store_has_them(dtype):
    index_BK, prob_BK, tail_B = records(5, 4, 6, 40)
    stored = index_BK.cpu().numpy().astype(dtype)
    stored[stored == PADDING] = np.iinfo(dtype).max
    prob_BK = torch.where(index_BK == PADDING, float("nan"), prob_BK)
    kept = torch.from_numpy(stored).to(DEVICE), prob_BK, tail_B
    found, found_BC, expected, expected_BC = both_forms(logits(5, 4, 40), kept)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("temperature", [None, 2.0])
@pytest.mark.parametrize("factor", [1.0, -0.75])
def test_weights_and_the_factor_of_the_backward_pass(factor, temperature):
    logits_BC = logits(9, 5, 5000).detach()
    logits_BC[1] = float("nan")
    logits_BC[3, 7] = float("inf")
    weight_B = torch.tensor([1.0, 0.0, 0.25, 0.0, 2.0], device=DEVICE)
    found, found_BC, expected, expected_BC = both_forms(
        logits_BC.requires_grad_(),
        records(9, 5, 4, 5000),
        temperature=temperature,
        factor=factor,
        weight_B=weight_B,
        overwrite=True,
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    counts_B = weight_B > 0
    torch.testing.assert_close(found_BC[counts_B].double(), expected_BC[counts_B], rtol=1e-4, atol=1e-9)
    assert not found_BC[~counts_B].any()


def test_no_weight_at_all():
    logits_BC = logits(9, 3, 50)
    loss = soft_target_cross_entropy(logits_BC, *records(9, 3, 4, 50), weight_B=torch.zeros(3, device=DEVICE))
    (gradient_BC,) = torch.autograd.grad(loss, logits_BC)
    assert loss.item() == 0.0
    assert not gradient_BC.any()


@pytest.mark.parametrize("offset", [-1000.0, 1000.0])
def test_a_shift_of_all_logits_changes_nothing(offset):
    kept = records(3, 4, 4, 5000)
    logits_BC = logits(3, 4, 5000).detach().mul(64).round().div(64)  # exact when shifted
    losses = [soft_target_cross_entropy(z_BC, *kept).item() for z_BC in (logits_BC, logits_BC + offset)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which the interpreter computes with
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_seen(bad):
    for place in (0, 4500):
        logits_BC = torch.zeros(2, 5000, device=DEVICE)
        logits_BC[1, place] = bad
        assert not soft_target_cross_entropy(logits_BC, *records(3, 2, 4, 5000)).isfinite()


def test_without_a_gradient_logits_stay():
    logits_BC = logits(3, 4, 50)
    before = logits_BC.detach().clone()
    with torch.no_grad():
        loss = soft_target_cross_entropy(logits_BC, *records(3, 4, 4, 50), overwrite=True)
    assert torch.equal(before, logits_BC)
    assert not loss.requires_grad


def test_they_are_tried_out_before_they_are_used(monkeypatch):
    assert one_pass.kernels_work.__wrapped__(DEVICE)
    with torch.inference_mode():
        assert one_pass.kernels_work.__wrapped__(DEVICE)
    monkeypatch.setattr(kernels, "scale_", lambda values, factor: values)
    with pytest.warns(UserWarning, match=f"do not work on {DEVICE} .AssertionError.*the plain form is used"):
        assert not one_pass.kernels_work.__wrapped__(DEVICE)
