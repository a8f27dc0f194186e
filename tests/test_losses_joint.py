"""Losses on logits and at a temperature, and joint losses, against plain float64 references with their gradients."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loss_cases import dense_target, make_records, random_logits
from torch import Tensor

from logitstore.losses import (
    alpha_coefficients,
    harmonic_coefficients,
    joint_loss,
    logit_mse,
    ratio_coefficients,
    soft_target_cross_entropy,
    tempered_kl,
)

getcontext().prec = 60
TEMPERATURES = st.floats(0.3, 20.0)


def numpy_kl(logits: np.ndarray, target: np.ndarray, weight: np.ndarray, temperature: float) -> float:
    """T^2 times the mean divergence, from its definition, class by class."""
    rows = []
    for z, q in zip(logits, target, strict=True):
        powers = np.where(q > 0, np.power(q, 1 / temperature, where=q > 0, out=np.zeros_like(q)), 0.0)
        tempered = powers / powers.sum()
        scaled = z / temperature
        log_student = scaled - scaled.max() - np.log(np.exp(scaled - scaled.max()).sum())
        rows.append(sum(p * (np.log(p) - s) for p, s in zip(tempered, log_student, strict=True) if p > 0))
    return temperature**2 * float((np.array(rows) * weight).sum() / weight.sum())


def torch_kl(logits_BC: Tensor, target_BC: Tensor, weight_B: Tensor, temperature: float) -> Tensor:
    """The same by torch's own divergence, for the gradient."""
    tempered_BC = target_BC.pow(1 / temperature)
    tempered_BC = tempered_BC / tempered_BC.sum(1, keepdim=True)
    log_student_BC = torch.log_softmax(logits_BC / temperature, 1)
    loss_B = torch.nn.functional.kl_div(log_student_BC, tempered_BC, reduction="none").sum(1)
    return temperature**2 * (loss_B * weight_B).sum() / weight_B.sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 5), classes=st.integers(2, 30), temperature=TEMPERATURES,
    data=st.data(),
)
def test_divergence_at_a_temperature_equals_the_dense_form(seed, batch, classes, temperature, data):
    index_BK, prob_BK, tail_B = make_records(seed, batch, data.draw(st.integers(1, classes)), classes)
    weight_B = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, batch).astype(np.float64))
    weight_B[0] = 1.0
    target_BC = dense_target(index_BK, prob_BK, tail_B, classes)
    ours, dense = (random_logits(seed, batch, classes) for _ in range(2))
    loss = tempered_kl(ours, index_BK, prob_BK, tail_B, temperature=temperature, weight_B=weight_B)
    expected = torch_kl(dense, target_BC, weight_B, temperature)
    loss.backward()
    expected.backward()
    by_hand = numpy_kl(dense.detach().numpy(), target_BC.numpy(), weight_B.numpy(), temperature)
    assert loss.item() == pytest.approx(by_hand, rel=1e-9, abs=1e-11)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 30), data=st.data())
def test_at_temperature_one_it_is_the_cross_entropy_less_the_targets_entropy(seed, classes, data):
    index_BK, prob_BK, tail_B = make_records(seed, 4, data.draw(st.integers(1, classes)), classes)
    target_BC = dense_target(index_BK, prob_BK, tail_B, classes)
    one, other = (random_logits(seed, 4, classes) for _ in range(2))
    divergence = tempered_kl(one, index_BK, prob_BK, tail_B, temperature=1.0)
    entropy = -torch.xlogy(target_BC, target_BC).sum(1).mean()
    cross_entropy = soft_target_cross_entropy(other, index_BK, prob_BK, tail_B)
    (divergence + cross_entropy).backward()
    torch.testing.assert_close(divergence, cross_entropy - entropy, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("topk", "classes", "pad"), [(1, 2, False), (2, 2, False), (5, 21, True), (7, 7, False)])
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_gradcheck_of_the_divergence(topk, classes, pad, temperature):
    index_BK, prob_BK, tail_B = make_records(3, 4, topk, classes, pad=pad)
    weight_B = torch.tensor([1.0, 0.0, 1.0, 0.5])
    assert torch.autograd.gradcheck(
        lambda z: tempered_kl(z, index_BK, prob_BK, tail_B, temperature=temperature, weight_B=weight_B),
        (random_logits(1, 4, classes, scale=1.0),),
    )


def test_the_tail_is_tempered_too():
    """One class of ten is kept with 0.91; the other nine share 0.09, so 0.01 each, at T = 2 proportional to 0.1."""
    record = (torch.tensor([[3]]), *(torch.tensor(mass, dtype=torch.float64) for mass in ([[0.91]], [0.09])))
    odds = 0.91**0.5 / (0.91**0.5 + 9 * 0.1)
    logits_BC = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
    tempered_kl(logits_BC, *record, temperature=2.0).backward()
    assert logits_BC.grad[0, 3].item() == pytest.approx(2 * (0.1 - odds), rel=1e-12)
    assert logits_BC.grad[0, 0].item() == pytest.approx(2 * (0.1 - (1 - odds) / 9), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_that_equals_its_teacher_has_a_loss_of_zero_and_never_less(dtype, temperature):
    teacher_BC = random_logits(8, 64, 50).detach().to(dtype).float()
    prob_BC, index_BC = teacher_BC.softmax(1).sort(1, descending=True)
    logits_BC = teacher_BC.to(dtype).requires_grad_()
    loss = tempered_kl(logits_BC, index_BC, prob_BC, torch.zeros(64), temperature=temperature)
    loss.backward()
    assert loss.dtype == torch.float32
    assert 0.0 <= loss.item() < 2e-6 * temperature**2
    assert logits_BC.grad.abs().max() < 1e-7 * temperature
    shifted = logits_BC.detach().float()
    shifted[:, 0] += 1e-4  # a gradient where rounding makes the value 0, too
    shifted.requires_grad_()
    tempered_kl(shifted, index_BC, prob_BC, torch.zeros(64), temperature=temperature).backward()
    assert (shifted.grad[:, 0] > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_lose_nothing_but_their_own_rounding(dtype):
    index_BK, prob_BK, tail_B = make_records(2, 16, 20, 1000)
    teacher_BC = random_logits(3, 16, 1000).detach().float()
    half = random_logits(2, 16, 1000).detach().to(dtype)
    for loss in (
        lambda z: tempered_kl(z, index_BK, prob_BK, tail_B, temperature=4.0),
        lambda z: logit_mse(z, teacher_BC),
    ):
        ours, exact = half.clone().requires_grad_(), half.double().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(ours)
        expected = loss(exact)
        value.backward()
        expected.backward()
        assert value.dtype == torch.float32 and ours.grad.dtype == dtype
        assert value.item() == pytest.approx(expected.item(), rel=2e-5)
        torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=2**-7, atol=1e-6)


def test_padding_and_rows_without_a_record_count_for_nothing():
    index_BK = torch.tensor([[2, 2**32 - 1], [2**32 - 1, 2**32 - 1]])
    prob_BK = torch.tensor([[0.75, float("nan")], [0.0, 0.0]])
    weight_B = torch.tensor([1.0, 0.0])
    logits_BC = torch.tensor([[0.3, -1.0, 2.0, 0.1], [1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    loss = tempered_kl(logits_BC, index_BK, prob_BK, torch.tensor([0.25, 0.0]), temperature=4.0, weight_B=weight_B)
    loss.backward()
    alone = tempered_kl(
        logits_BC[:1], torch.tensor([[2]]), torch.tensor([[0.75]]), torch.tensor([0.25]), temperature=4.0
    )
    torch.testing.assert_close(loss, alone)
    assert torch.isfinite(logits_BC.grad).all() and not logits_BC.grad[1].any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 6), classes=st.integers(1, 20))
def test_mse_of_logits_equals_the_plain_form(seed, batch, classes):
    teacher_BC = random_logits(seed + 1, batch, classes).detach()
    weight_B = np.random.default_rng(seed).integers(0, 2, batch).astype(np.float64)
    weight_B[0] = 1.0
    logits_BC = random_logits(seed, batch, classes)
    loss = logit_mse(logits_BC, teacher_BC, weight_B=torch.from_numpy(weight_B))
    loss.backward()
    difference = logits_BC.detach().numpy() - teacher_BC.numpy()
    share = weight_B / weight_B.sum()
    assert loss.item() == pytest.approx((share * (difference**2).mean(1)).sum(), rel=1e-12)
    np.testing.assert_allclose(logits_BC.grad.numpy(), 2 * difference / classes * share[:, None], rtol=1e-12)


def test_mse_ignores_what_stands_in_rows_of_weight_zero():
    teacher_BC = torch.tensor([[1.0, 2.0], [float("nan"), float("nan")]])
    logits_BC = torch.zeros(2, 2, requires_grad=True)
    loss = logit_mse(logits_BC, teacher_BC, weight_B=torch.tensor([1.0, 0.0]))
    loss.backward()
    assert loss.item() == 2.5
    assert logits_BC.grad.tolist() == [[-1.0, -2.0], [0.0, 0.0]]


def harmonic_mean(d: Tensor, s: Tensor, weights: tuple[float, float]) -> Tensor:
    return joint_loss(d, s, harmonic_coefficients(d, s, weights))


def harmonic_by_hand(loss_d: float, loss_s: float, weight_d: float, weight_s: float) -> tuple[float, float, float]:
    """Equation 4 and its two derivatives in 60 digits; the limits where a loss is 0."""
    d, s, wd, ws = (Decimal(value) for value in (loss_d, loss_s, weight_d, weight_s))
    if d == 0 and s == 0:
        return 0.0, float(wd / (wd + ws)), float(ws / (wd + ws))
    if d == 0:
        return 0.0, float((wd + ws) / wd), 0.0
    if s == 0:
        return 0.0, 0.0, float((wd + ws) / ws)
    value = (wd + ws) / (wd / d + ws / s)
    return float(value), float(value**2 * wd / ((wd + ws) * d**2)), float(value**2 * ws / ((wd + ws) * s**2))


def harmonic_by_autograd(loss_d: float, loss_s: float, weights: tuple[float, float], dtype: torch.dtype) -> list[float]:
    d, s = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (loss_d, loss_s))
    value = harmonic_mean(d, s, weights)
    value.backward()
    return [value.item(), d.grad.item(), s.grad.item()]


LOSSES = st.one_of(st.just(0.0), st.floats(1e-30, 1e30), st.sampled_from([1e-8, 1e-38, 1.0, 4.6]))


@settings(max_examples=200, deadline=None)
@given(loss_d=LOSSES, loss_s=LOSSES, weights=st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)))
def test_the_harmonic_mean_and_its_gradient_are_right_at_every_scale(loss_d, loss_s, weights):
    expected = harmonic_by_hand(loss_d, loss_s, *weights)
    double = harmonic_by_autograd(loss_d, loss_s, weights, torch.float64)
    np.testing.assert_allclose(double, expected, rtol=1e-12, atol=1e-300)
    single = harmonic_by_autograd(loss_d, loss_s, weights, torch.float32)
    assume(min(value for value in (*expected, 1.0) if value) > 1e-37)  # what float32 holds with all its digits
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("loss_d", [0.0, 1e-8, 1e-4, 1.0])
@pytest.mark.parametrize("loss_s", [0.0, 1e-8, 2.3])
def test_the_harmonic_mean_where_it_collapses(loss_d, loss_s):
    """At 13:1 it follows the smaller loss; the other one's gradient vanishes with the square of the ratio."""
    value, by_d, by_s = harmonic_by_autograd(loss_d, loss_s, (13.0, 1.0), torch.float32)
    assert all(np.isfinite([value, by_d, by_s]))
    np.testing.assert_allclose([value, by_d, by_s], harmonic_by_hand(loss_d, loss_s, 13, 1), rtol=1e-6, atol=1e-37)
    if loss_d <= 1e-8 and loss_s == 2.3:
        assert value == pytest.approx(14 / 13 * loss_d) and by_d == pytest.approx(14 / 13)
        assert by_s < 1e-16, "labels teach nothing any more"


def test_the_harmonic_mean_is_the_paper_s_formula_and_passes_gradcheck():
    d, s = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 2.1))
    assert harmonic_mean(d, s, (13.0, 1.0)).item() == pytest.approx(14 / (13 / 0.7 + 1 / 2.1), rel=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: harmonic_mean(a, b, (13.0, 1.0)), (d, s))
    assert all(not c.requires_grad for c in harmonic_coefficients(d, s, (13.0, 1.0)))


def test_a_loss_that_is_not_finite_shows_in_the_mean():
    for bad in (float("nan"), float("inf")):
        for pair in ((bad, 1.0), (1.0, bad)):
            d, s = (torch.tensor(value) for value in pair)
            assert not torch.isfinite(harmonic_mean(d, s, (13.0, 1.0)))
            assert not torch.isfinite(joint_loss(d, s, ratio_coefficients(d, s)))


@settings(max_examples=60, deadline=None)
@given(loss_d=st.floats(1e-12, 1e6), loss_s=st.floats(1e-12, 1e6))
def test_the_ratio_weights_each_loss_with_the_other_and_has_no_gradient(loss_d, loss_s):
    for dtype, rel in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        d, s = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (loss_d, loss_s))
        coefficients = ratio_coefficients(d, s)
        value = joint_loss(d, s, coefficients)
        value.backward()
        assert coefficients[1].item() == pytest.approx(loss_d / (loss_s + loss_d), rel=rel)
        assert value.item() == pytest.approx(2 / (1 / loss_d + 1 / loss_s), rel=rel)
        assert d.grad.item() == pytest.approx(loss_s / (loss_s + loss_d), rel=rel)
        assert s.grad.item() == pytest.approx(loss_d / (loss_s + loss_d), rel=rel)


@pytest.mark.parametrize(
    ("pair", "alpha"), [((0.0, 0.0), 0.5), ((0.0, 2.0), 0.0), ((2.0, 0.0), 1.0), ((1e-8, 1e-8), 0.5)]
)
def test_the_ratio_at_zero(pair, alpha):
    d, s = (torch.tensor(value) for value in pair)
    assert [value.item() for value in ratio_coefficients(d, s)] == [1 - alpha, alpha]


def test_alpha_weights_the_hard_labels():
    d, s = torch.tensor(3.0), torch.tensor(5.0)
    for alpha, expected in ((0.0, 3.0), (1.0, 5.0), (0.25, 0.75 * 3 + 0.25 * 5)):
        assert joint_loss(d, s, alpha_coefficients((alpha, alpha))).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("alpha", "progress", "expected"),
    [((0.25, 0.25), 0.3, 0.25), ((0.0, 0.5), 0.0, 0.0), ((0.0, 0.5), 0.5, 0.25), ((0.0, 0.5), 1.0, 0.5),
     ((1.0, 0.5), 0.25, 0.875)],
)
def test_alpha_is_linear_in_the_progress(alpha, progress, expected):
    assert alpha_coefficients(alpha, progress) == pytest.approx((1 - expected, expected))
