"""The sparse losses against their dense form in float64: values, gradients, padding, edge cases, autocast."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import PADDING, dense_cross_entropy, dense_target, make_records, random_logits

from benchmarks.measures.loss import made_records, peak_bytes
from logitstore.losses import hard_label_cross_entropy, soft_target_cross_entropy, tempered_kl, weighted_mean


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 6),
    classes=st.integers(2, 40),
    data=st.data(),
    offset=st.sampled_from([0.0, -300.0, 300.0]),
)
def test_value_and_gradient_equal_the_dense_form(seed, batch, classes, data, offset):
    topk = data.draw(st.integers(1, classes))
    index_BK, prob_BK, tail_B = make_records(seed, batch, topk, classes)
    weight_B = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, batch).astype(np.float64))
    weight_B[0] = 1.0
    sparse_logits, dense_logits = (random_logits(seed, batch, classes) for _ in range(2))
    sparse = soft_target_cross_entropy(sparse_logits + offset, index_BK, prob_BK, tail_B, weight_B=weight_B)
    dense = dense_cross_entropy(dense_logits + offset, dense_target(index_BK, prob_BK, tail_B, classes), weight_B)
    sparse.backward()
    dense.backward()
    assert sparse.dtype == torch.float64
    torch.testing.assert_close(sparse, dense, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(sparse_logits.grad, dense_logits.grad, rtol=1e-10, atol=1e-13)
    # Targets and softmax both sum to one, so gradients of a row sum to zero.
    torch.testing.assert_close(sparse_logits.grad.sum(1), torch.zeros(batch, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("topk", "classes", "pad"),
    [(1, 2, False), (2, 2, False), (2, 2, True), (7, 7, False), (5, 21, True)],
    ids=["two-classes-one-kept", "two-classes-all-kept", "two-classes-padded", "all-kept", "padded"],
)
def test_gradcheck(topk, classes, pad):
    index_BK, prob_BK, tail_B = make_records(3, 4, topk, classes, pad=pad)
    weight_B = torch.tensor([1.0, 0.0, 1.0, 0.5])
    logits_BC = random_logits(1, 4, classes, scale=1.0)
    assert torch.autograd.gradcheck(
        lambda z: soft_target_cross_entropy(z, index_BK, prob_BK, tail_B, weight_B=weight_B), (logits_BC,)
    )


def test_the_closed_form_of_the_paper():
    index_BK, prob_BK, tail_B = make_records(5, 8, 4, 30)
    z = random_logits(5, 8, 30).detach()
    kept_B = (index_BK < 30).sum(1)
    r = tail_B / (30 - kept_B)
    kept_logit_BK = z.gather(1, index_BK.clamp(max=29)) * (index_BK < 30)
    excess_BK = (prob_BK - r[:, None]) * (index_BK < 30)
    expected = torch.logsumexp(z, 1) - (excess_BK * kept_logit_BK).sum(1) - r * z.sum(1)
    torch.testing.assert_close(soft_target_cross_entropy(z, index_BK, prob_BK, tail_B), expected.mean())


def test_empty_tail_ignores_the_classes_not_kept():
    index_BK = torch.tensor([[2, PADDING, PADDING]])
    prob_BK = torch.tensor([[1.0, 0.0, 0.0]])
    logits_BC = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = soft_target_cross_entropy(logits_BC, index_BK, prob_BK, torch.zeros(1))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits_BC, torch.tensor([2])))


def test_all_kept_ignores_a_tail_of_rounding():
    index_BK = torch.tensor([[1, 0]])
    loss = soft_target_cross_entropy(torch.zeros(1, 2), index_BK, torch.tensor([[0.75, 0.25]]), torch.tensor([1e-7]))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)


def test_padding_of_uint32_records_and_what_stands_there():
    index_BK = torch.tensor([[0, 2**32 - 1]])
    noise = torch.tensor([[0.5, float("nan")]])
    clean = torch.tensor([[0.5, 0.0]])
    logits_BC = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    loss = soft_target_cross_entropy(logits_BC, index_BK, noise, torch.tensor([0.5]))
    loss.backward()
    assert torch.isfinite(logits_BC.grad).all()
    assert loss == soft_target_cross_entropy(logits_BC, torch.tensor([[0, PADDING]]), clean, torch.tensor([0.5]))


def test_rows_of_weight_zero_count_for_nothing():
    index_BK, prob_BK, tail_B = make_records(9, 3, 4, 11)
    logits_BC = random_logits(9, 3, 11)
    poisoned = logits_BC.detach().clone()
    poisoned[1] = float("inf")
    poisoned.requires_grad_()
    weight_B = torch.tensor([1.0, 0.0, 1.0])
    loss = soft_target_cross_entropy(logits_BC, index_BK, prob_BK, tail_B, weight_B=weight_B)
    rest = [0, 2]
    torch.testing.assert_close(
        loss, soft_target_cross_entropy(logits_BC[rest], index_BK[rest], prob_BK[rest], tail_B[rest])
    )
    torch.testing.assert_close(
        loss, soft_target_cross_entropy(poisoned, index_BK, prob_BK, tail_B, weight_B=weight_B)
    )
    nothing = soft_target_cross_entropy(logits_BC, index_BK, prob_BK, tail_B, weight_B=torch.zeros(3))
    nothing.backward()
    assert nothing.item() == 0.0
    assert not logits_BC.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_accumulated_in_float32(dtype):
    index_BK, prob_BK, tail_B = make_records(2, 16, 20, 1000)
    logits_BC = random_logits(2, 16, 1000).detach().to(dtype).requires_grad_()
    exact = logits_BC.detach().double().requires_grad_()
    loss = soft_target_cross_entropy(logits_BC, index_BK, prob_BK.float(), tail_B.float())
    expected = soft_target_cross_entropy(exact, index_BK, prob_BK, tail_B)
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32
    assert logits_BC.grad.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(logits_BC.grad.double(), exact.grad, rtol=2**-7, atol=1e-6)


def test_under_autocast():
    index_BK, prob_BK, tail_B = make_records(4, 8, 5, 12)
    weight_NC = torch.randn(6, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    feature_BN = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        logits_BC = feature_BN @ weight_NC
        assert logits_BC.dtype == torch.bfloat16
        loss = soft_target_cross_entropy(logits_BC, index_BK, prob_BK, tail_B)
    loss.backward()
    expected = dense_cross_entropy(
        logits_BC.detach().double(), dense_target(index_BK, prob_BK, tail_B, 12), torch.ones(8)
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.isfinite(weight_NC.grad).all()


@pytest.mark.parametrize("temperature", [None, 4.0], ids=["cross-entropy", "divergence"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_dense_target_is_made(dtype, temperature):
    """Memory at 21,841 classes: hard labels take three more tensors of the logits' size, soft ones one, or none."""
    batch, classes = 512, 21_841
    records = made_records(batch, 100, classes, torch.device("cpu"))
    loss = soft_target_cross_entropy if temperature is None else partial(tempered_kl, temperature=temperature)
    logits_BC = torch.zeros(batch, classes, dtype=dtype, requires_grad=True)
    found = {}
    for overwrite in (False, True):
        def work(overwrite=overwrite):
            torch.autograd.grad(loss(logits_BC, *records, overwrite=overwrite), logits_BC)
        found[overwrite] = peak_bytes(work, torch.device("cpu")) / (logits_BC.numel() * logits_BC.element_size())
    assert 1.0 <= found[False] < 1.5
    assert found[True] < 0.5


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 6),
    classes=st.integers(2, 12),
    smoothing=st.sampled_from([0.0, 0.1]),
    mixed=st.booleans(),
)
def test_hard_labels_equal_the_dense_form(seed, batch, classes, smoothing, mixed):
    rng = np.random.default_rng(seed)
    label_B, partner_B = (torch.from_numpy(rng.integers(0, classes, batch)) for _ in range(2))
    own_B = torch.from_numpy(np.where(rng.random(batch) < 0.5, 1.0, rng.random(batch)))
    weight_B = torch.from_numpy(rng.integers(0, 2, batch).astype(np.float32))
    weight_B[0] = 1.0
    one_hot = torch.eye(classes, dtype=torch.float64)
    target_BC = one_hot[label_B]
    if mixed:
        target_BC = own_B[:, None] * one_hot[label_B] + (1 - own_B[:, None]) * one_hot[partner_B]
    target_BC = target_BC * (1 - smoothing) + smoothing / classes
    ours, dense = (random_logits(seed, batch, classes) for _ in range(2))
    loss = hard_label_cross_entropy(
        ours,
        label_B,
        partner_label_B=torch.where(own_B < 1, partner_B, -1) if mixed else None,
        own_B=own_B if mixed else None,
        smoothing=smoothing,
        weight_B=weight_B,
    )
    expected = dense_cross_entropy(dense, target_BC, weight_B.double())
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-10, atol=1e-13)


def test_hard_labels_equal_torch_under_autocast():
    logits_BC = random_logits(0, 8, 10).detach().float()
    label_B = torch.arange(8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = hard_label_cross_entropy(logits_BC.bfloat16(), label_B, smoothing=0.1)
    expected = torch.nn.functional.cross_entropy(logits_BC.bfloat16().float(), label_B, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_weighted_mean_without_weights():
    assert weighted_mean(torch.tensor([1.0, 3.0]), None) == 2.0
