"""Losses on relations of attention and hidden states against their plain form in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import plain_relation_loss
from torch import Tensor

from logitstore.losses import attention_relation_loss, hidden_relation_loss, relations


def states(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    windows=st.integers(1, 4),
    tokens=st.integers(1, 12),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    chunk=st.sampled_from([1, 40, 500, 1 << 18]),
)
def test_attention_equals_the_plain_form(seed, batch, windows, tokens, widths, chunk):
    own, theirs = (
        states(seed + place, batch * windows, 3, tokens, width).requires_grad_() for place, width in enumerate(widths)
    )
    twin = own.detach().clone().requires_grad_()
    weight_B = torch.arange(batch, dtype=torch.float64).flip(0) / 2 + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(relations._CHUNK, "cpu", chunk)
        loss = attention_relation_loss(own, theirs, weight_B=weight_B)
    expected = plain_relation_loss(twin, theirs.detach(), weight_B)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    (loss * 3).backward()
    (expected * 3).backward()
    torch.testing.assert_close(own.grad, twin.grad, rtol=1e-9, atol=1e-12)
    assert theirs.grad is None


@pytest.mark.parametrize("chunk", [7, 1 << 18], ids=["some-rows", "whole"])
def test_hidden_equals_the_plain_form(chunk, monkeypatch):
    monkeypatch.setitem(relations._CHUNK, "cpu", chunk)
    own, theirs = states(1, 3, 10, 4).requires_grad_(), states(2, 3, 10, 7)
    twin = own.detach().clone().requires_grad_()
    weight_B = torch.tensor([1.0, 0.0, 0.25], dtype=torch.float64)
    loss = hidden_relation_loss(own, theirs, weight_B=weight_B)
    expected = plain_relation_loss(twin[:, None], theirs[:, None], weight_B)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(own.grad, twin.grad)
    assert not own.grad[1].any()


def test_gradcheck():
    own, theirs = states(3, 4, 3, 5, 2).requires_grad_(), states(4, 4, 3, 5, 3)
    weight_B = torch.tensor([1.0, 0.5])
    assert torch.autograd.gradcheck(lambda x: attention_relation_loss(x, theirs, weight_B=weight_B), (own,))


def test_of_a_single_token_there_is_nothing_to_relate():
    own = states(1, 2, 1, 3).requires_grad_()
    loss = hidden_relation_loss(own, states(2, 2, 1, 3))
    loss.backward()
    assert loss.item() == 0 and not own.grad.any()


def test_a_student_that_relates_as_its_teacher_has_no_gradient_and_the_teachers_entropy():
    theirs = states(5, 2, 3, 6, 8)
    turn, _ = torch.linalg.qr(states(6, 8, 8))  # relations do not change with the basis, only with the products
    own = (theirs @ turn).requires_grad_()
    loss = attention_relation_loss(own, theirs)
    loss.backward()
    assert own.grad.abs().max() < 1e-14
    torch.testing.assert_close(loss, plain_relation_loss(theirs, theirs, torch.ones(2)))
    assert attention_relation_loss(states(7, 2, 3, 6, 8), theirs) > loss


def test_what_is_in_images_of_weight_zero_does_not_count():
    own, theirs = states(1, 6, 3, 4, 5), states(2, 6, 3, 4, 5)
    clean = attention_relation_loss(own[[0, 1, 4, 5]], theirs[[0, 1, 4, 5]])
    for poisoned in (own, theirs):
        poisoned[2:4] = float("nan")
    own.requires_grad_()
    loss = attention_relation_loss(own, theirs, weight_B=torch.tensor([1.0, 0.0, 1.0]))
    loss.backward()
    torch.testing.assert_close(loss, clean)
    assert torch.isfinite(own.grad).all() and not own.grad[2:4].any() and own.grad[1].any()
    nothing = attention_relation_loss(own, theirs, weight_B=torch.zeros(3))
    assert nothing.item() == 0 and torch.autograd.grad(nothing, own)[0].count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_also_under_autocast(dtype):
    """States of trained models have products far above 65,504, where float16 ends."""
    own, theirs = states(1, 2, 3, 7, 64, scale=30).to(dtype), states(2, 2, 3, 7, 64, scale=30).to(dtype)
    exact = attention_relation_loss(own.double(), theirs.double())
    own.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = attention_relation_loss(own, theirs)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    loss.backward()
    assert own.grad.dtype == dtype and torch.isfinite(own.grad).all()


def test_types_of_both_may_differ():
    own, theirs = states(1, 2, 3, 4, 5), states(2, 2, 3, 4, 6)
    exact = attention_relation_loss(own, theirs)
    for one, other, result in ((own.float(), theirs, torch.float32), (own, theirs.bfloat16(), torch.float64)):
        loss = attention_relation_loss(one, other)
        assert loss.dtype == result and loss.item() == pytest.approx(exact.item(), rel=1e-2)


def test_without_a_gradient_none_is_made(monkeypatch):
    own, theirs = states(1, 2, 3, 4, 5).requires_grad_(), states(2, 2, 3, 4, 5)
    loss = attention_relation_loss(own, theirs)
    made = []
    monkeypatch.setattr(torch, "zeros_like", lambda *a, **k: made.append(1))
    with torch.no_grad():
        again = attention_relation_loss(own, theirs)
    assert not made and not again.requires_grad
    torch.testing.assert_close(again, loss.detach())


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (4, 3, 4, 4), (2, 1, 4, 4)], ids=["tokens", "windows", "states"])
def test_other_numbers_of_windows_states_or_tokens_are_refused(shape):
    with pytest.raises(ValueError, match=r"has \(2, 3, 4\) windows, states and tokens, the teacher"):
        attention_relation_loss(states(1, 2, 3, 4, 4), states(1, *shape))


def test_weights_of_other_images_are_refused():
    own = states(1, 2, 3, 4, 4)
    for images in (3, 4):
        with pytest.raises(ValueError, match=f"2 windows are no whole number for each of {images} weights"):
            attention_relation_loss(own, own, weight_B=torch.ones(images))
