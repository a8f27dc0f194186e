"""Losses whose gradient is made in the same pass: equal to the plain form, asked for once, and where it may lie."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import make_records, random_logits
from torch import Tensor, nn

from logitstore.learning.criterion import Targets, make_criterion, soft_target_loss, tempered_loss
from logitstore.losses import one_pass, soft_target_cross_entropy, tempered_kl
from students.recipes import select_recipe

CLASSES = 12


def loss_function(temperature: float | None):
    return soft_target_cross_entropy if temperature is None else partial(tempered_kl, temperature=temperature)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 9),
    classes=st.integers(2, 40),
    block=st.integers(1, 200),
    temperature=st.sampled_from([None, 0.5, 4.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    factor=st.sampled_from([1.0, -2.5]),
    overwrite=st.booleans(),
    data=st.data(),
)
def test_it_equals_the_plain_form(seed, batch, classes, block, temperature, dtype, factor, overwrite, data):
    """Float64 logits take the plain form; blocks of rows end anywhere in the batch."""
    records = make_records(seed, batch, data.draw(st.integers(1, classes)), classes)
    weight_B = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=batch, max_size=batch)))
    logits_BC = random_logits(seed, batch, classes).detach().to(dtype)
    exact_BC = logits_BC.double().requires_grad_()
    logits_BC[weight_B == 0] = float("nan")
    logits_BC.requires_grad_()
    loss = loss_function(temperature)
    expected = loss(exact_BC, *records, weight_B=weight_B)
    (expected_BC,) = torch.autograd.grad(expected * factor, exact_BC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_pass, "_BLOCK", block)
        found = loss(logits_BC, *records, weight_B=weight_B, overwrite=overwrite)
    (found_BC,) = torch.autograd.grad(found * factor, logits_BC)
    assert found.dtype == torch.float32 and found_BC.dtype == dtype
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=4e-6 * max(1, temperature or 1) ** 2)
    rounding = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=rounding, atol=1e-6 * max(1, temperature or 1))
    assert not found_BC[weight_B == 0].any()


@pytest.mark.parametrize("gap", [60.0, 300.0])
def test_a_student_that_rules_out_what_the_teacher_kept(gap: float) -> None:
    """At a gap of 60 the softmax of kept classes has lost its digits, at 300 it is 0; the loss has not."""
    index_BK, prob_BK = torch.tensor([[3, 5], [1, CLASSES]]), torch.tensor([[0.6, 0.3], [0.9, 0.0]])
    tail_B = torch.tensor([0.1, 0.1])
    logits_BC = random_logits(0, 2, CLASSES).detach().float()
    logits_BC[0, [3, 5]] -= gap
    logits_BC[1, 1] -= gap
    exact_BC = logits_BC.double().requires_grad_()
    expected = soft_target_cross_entropy(exact_BC, index_BK, prob_BK, tail_B)
    (expected_BC,) = torch.autograd.grad(expected, exact_BC)
    found = soft_target_cross_entropy(logits_BC.requires_grad_(), index_BK, prob_BK, tail_B)
    (found_BC,) = torch.autograd.grad(found, logits_BC)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=1e-5, atol=1e-7)


def test_many_classes_in_several_blocks():
    records = make_records(3, 70, 100, 21_841)
    exact_BC = random_logits(3, 70, 21_841)
    logits_BC = exact_BC.detach().float().requires_grad_()
    expected, found = (soft_target_cross_entropy(z_BC, *records) for z_BC in (exact_BC, logits_BC))
    (expected_BC,), (found_BC,) = torch.autograd.grad(expected, exact_BC), torch.autograd.grad(found, logits_BC)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=1e-4, atol=1e-10)


def test_masses_that_do_not_sum_to_one_have_the_gradient_of_the_value():
    index_BK, prob_BK, tail_B = make_records(4, 3, 4, 30)
    exact_BC = random_logits(4, 3, 30)
    logits_BC = exact_BC.detach().float().requires_grad_()
    expected, found = (soft_target_cross_entropy(z_BC, index_BK, prob_BK / 2, tail_B) for z_BC in (exact_BC, logits_BC))
    (expected_BC,), (found_BC,) = torch.autograd.grad(expected, exact_BC), torch.autograd.grad(found, logits_BC)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(found_BC.double(), expected_BC, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [None, 4.0])
def test_overwriting_puts_the_gradient_where_the_logits_were(temperature):
    records, loss = make_records(1, 4, 3, CLASSES), loss_function(temperature)
    feature_BN = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    found = []
    for overwrite in (False, True):
        layer = linear(6)
        logits_BC = layer(feature_BN)
        before = logits_BC.detach().clone()
        loss(logits_BC, *records, overwrite=overwrite).backward()
        assert torch.equal(before, logits_BC) != overwrite
        found.append(layer.weight.grad)
    assert torch.equal(*found)


def test_overwriting_needs_a_gradient_and_rows_one_after_the_other():
    records = make_records(1, 4, 3, CLASSES)
    logits_BC = random_logits(1, 4, CLASSES).detach().float().requires_grad_()
    before = logits_BC.detach().clone()
    with torch.no_grad():
        soft_target_cross_entropy(logits_BC, *records, overwrite=True)
    soft_target_cross_entropy(logits_BC.T.contiguous().T, *records, overwrite=True).backward()
    assert torch.equal(before, logits_BC)


def test_logits_that_something_else_needs_are_not_overwritten_unseen():
    logits_BC = random_logits(1, 4, CLASSES).detach().float().requires_grad_().sigmoid()
    loss = soft_target_cross_entropy(logits_BC, *make_records(1, 4, 3, CLASSES), overwrite=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_gradient_is_there_once():
    logits_BC = random_logits(1, 4, CLASSES).detach().float().requires_grad_()
    loss = soft_target_cross_entropy(logits_BC, *make_records(1, 4, 3, CLASSES))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()


@pytest.mark.parametrize("loss", [soft_target_loss, partial(tempered_loss, temperature=2.0)], ids=["soft", "tempered"])
def test_a_criterion_overwrites_only_what_its_maker_does_not_need(loss):
    feature_BN = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    heads = {
        "linear": (linear(6), True),
        "without bias": (linear(6, bias=False), True),
        "mean of two": (Mean(linear(6), linear(6)), True),
        "activation": (nn.Sequential(linear(6), nn.Sigmoid()), False),
        "view": (nn.Sequential(linear(6), nn.Unflatten(1, (3, 4)), nn.Flatten()), False),
    }
    for name, (head, overwritten) in heads.items():
        gradients = []
        for dtype in (torch.float32, torch.float64):
            head.to(dtype).zero_grad()
            logits_BC = head(feature_BN.to(dtype))
            before = logits_BC.detach().clone()
            loss(logits_BC, targets()).backward()
            gradients.append(torch.cat([parameter.grad.flatten().double() for parameter in head.parameters()]))
            assert torch.equal(before, logits_BC) != (overwritten and dtype == torch.float32), name
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_a_loss_on_labels_reads_the_logits_first():
    recipe = select_recipe("digits", joint="alpha", alpha=(0.5, 0.5))
    losses, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        head = linear(6).to(dtype)
        feature_BN = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
        criterion = make_criterion(recipe)
        parts = criterion.parts(head(feature_BN), targets())
        criterion.coefficients(parts, 0.0).join(parts).backward()
        losses.append([part.item() for part in parts.each(Tensor.detach).both])
        gradients.append(head.weight.grad.double())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


class Mean(nn.Module):
    """Two classifiers, as a distilled DeiT has them."""

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, feature_BN: Tensor) -> Tensor:
        return torch.stack([head(feature_BN) for head in self.heads]).mean(0)


def linear(width: int, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(width, CLASSES, bias=bias)


def targets() -> Targets:
    index_BK, prob_BK, tail_B = make_records(1, 4, 3, CLASSES)
    return Targets(
        weight_B=torch.ones(4),
        label_B=torch.arange(4),
        partner_label_B=torch.arange(4),
        own_B=torch.ones(4),
        index_BK=index_BK,
        prob_BK=prob_BK,
        tail_B=tail_B,
    )
