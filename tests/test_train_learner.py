"""One step of training: pieces, averages, BatchNorm, precision, and state that goes on exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import MemoryImages
from learner_cases import BATCH, CLASSES, CPU, HARD, PLAIN, SOFT, gradients, learner, make_batches, records, weights
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from logitstore.device import Compute, normalise
from logitstore.errors import NonFiniteError
from logitstore.learning.criterion import Criterion, Targets
from logitstore.learning.learner import Learner
from logitstore.loader import Batch
from logitstore.scoring import score
from students.recipes import digits


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return make_batches()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("criterion", [SOFT, HARD], ids=["soft", "hard"])
def test_pieces_give_the_gradient_of_the_whole(batches: list[Batch], criterion: Criterion) -> None:
    weight_B = np.ones(BATCH, np.float32)
    weight_B[:6] = 0.0  # pieces of unequal weight, one of none
    batch = replace(batches[0], weight_B=weight_B)
    recipe = replace(digits(), batch_size=BATCH, clip_grad=None)
    losses, found = [], []
    for accumulate in (1, 3, 8):
        one = learner(recipe=recipe, criterion=criterion, accumulate=accumulate, drop_path=0.0)
        losses.append(float(one.train_step(batch).total))
        found.append(gradients(one))
    for loss, gradient in zip(losses[1:], found[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for name, value in gradient.items():
            torch.testing.assert_close(value, found[0][name], rtol=1e-3, atol=1e-6)


def test_state_goes_on_exactly(batches: list[Batch]) -> None:
    recipe = replace(digits(), batch_size=BATCH, ema_decay=0.9)
    whole, first, second = (learner("test_efficientnet", recipe) for _ in range(3))
    for batch in batches:
        whole.train_step(batch)
    for batch in batches[:2]:
        first.train_step(batch)
    second.load_state_dict(first.state_dict())
    assert second.rate == first.rate
    for batch in batches[2:]:
        second.train_step(batch)
    assert equal(weights(whole.model), weights(second.model))
    assert equal(weights(whole.result), weights(second.result))


def test_masks_depend_on_seed_and_step_alone(batches: list[Batch]) -> None:
    same, again, other = learner(), learner(), learner(seed=4)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    losses = [float(one.train_step(batches[0]).total) for one in (same, again, other)]
    assert torch.equal(before, torch.get_rng_state())
    assert losses[0] == losses[1] != losses[2]


def test_the_average_is_what_is_saved(batches: list[Batch]) -> None:
    recipe = replace(digits(), batch_size=BATCH, ema_decay=0.99)
    averaged, plain = learner(recipe=recipe), learner()
    assert plain.result is plain.model
    for batch in batches:
        averaged.train_step(batch)
    assert averaged.result is not averaged.model
    assert not equal(weights(averaged.result), weights(averaged.model))


def test_an_average_is_scored_with_its_own_weights(batches: list[Batch]) -> None:
    """timm's TinyViT caches attention biases in eval mode, where an average lives; the cache must not outlive them."""
    images = MemoryImages(8, labels=[0] * 8)
    model = timm_tinyvit()
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))

    def measure() -> torch.Tensor:
        seen.clear()
        score(model, images, size=32, preprocessing=PLAIN, compute=Compute(device=CPU, batch_size=8))
        return seen[0]

    model.eval()
    before = measure()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attention_biases"):
                parameter.add_(torch.linspace(-3, 3, parameter.numel()).view_as(parameter))
    after = measure()
    assert not torch.equal(before, after)
    state = model.state_dict()
    fresh = timm_tinyvit().eval()
    fresh.load_state_dict(state)
    model = fresh
    model.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    assert torch.equal(measure(), after)


def timm_tinyvit() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("tiny_vit_5m_224", num_classes=2, window_sizes=(7, 4, 2, 1))  # type: ignore[no-any-return]


def test_batch_norm_in_eval_mode_keeps_its_statistics(batches: list[Batch]) -> None:
    for bn_eval in (True, False):
        one = learner("test_efficientnet", replace(digits(), batch_size=BATCH, bn_eval=bn_eval))
        before = weights(one.model)
        one.train_step(batches[0])
        one.model.eval()
        one.train_step(batches[1])
        after = weights(one.model)
        means = [name for name in before if name.endswith("running_mean")]
        assert means
        assert all(torch.equal(before[name], after[name]) for name in means) == bn_eval
        trained = next(name for name in before if name.endswith("classifier.weight"))
        assert not torch.equal(before[trained], after[trained])


class Probe(nn.Module):
    """A backbone whose statistics have no parameters beside them, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(3, affine=False), nn.Dropout(0.5), nn.Linear(3, CLASSES)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        kept = self.drop(torch.ones_like(images_BCHW))
        assert torch.equal(kept, torch.ones_like(kept)) == (not self.drop.training)
        return self.head((self.norm(images_BCHW) * kept).mean((2, 3)))  # type: ignore[no-any-return]


def test_what_is_not_trained_stays_in_eval_mode_without_parameters_too(batches: list[Batch]) -> None:
    for probe in (True, False):
        model = Probe()
        before = weights(model)
        one = direct_learner(model, trained=[model.head] if probe else None)
        one.train_step(batches[0])
        assert [part.training for part in (model.norm, model.drop, model.head)] == [not probe, not probe, True]
        assert torch.equal(model.norm.running_mean, before["norm.running_mean"]) == probe  # type: ignore[arg-type]
        assert not torch.equal(model.head.weight, before["head.weight"])


def test_two_classifiers_learn_from_the_mean_of_their_logits(batches: list[Batch]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformerDistilled(
            img_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=2, num_classes=CLASSES
        )
        nn.init.normal_(model.head.weight)
        nn.init.normal_(model.head_dist.weight)
    model.set_distilled_training(True)
    images_BCHW = normalise(torch.from_numpy(batches[0].views_BCHW), PLAIN.mean, PLAIN.std, CPU)
    first_BC, second_BC = model.train()(images_BCHW)
    label_B = torch.from_numpy(batches[0].label_B)
    expected = nn.functional.cross_entropy((first_BC + second_BC) / 2, label_B, label_smoothing=0.1)
    one = direct_learner(model)
    assert float(one.train_step(batches[0]).total) == pytest.approx(expected.item(), rel=1e-6)
    found = gradients(one)
    assert found["head.weight"].any() and found["head_dist.weight"].any()


def direct_learner(model: nn.Module, **options: Any) -> Learner:
    recipe = replace(digits(), batch_size=BATCH, warmup_epochs=0.0)
    return Learner(model, HARD, recipe, preprocessing=PLAIN, steps_per_epoch=4, seed=3, device=CPU, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_learns_like_float32(batches: list[Batch], dtype: torch.dtype) -> None:
    full, half = learner(), learner(dtype=dtype)
    pairs = [(float(full.train_step(batch).total), float(half.train_step(batch).total)) for batch in batches * 2]
    for one, other in pairs:
        assert other == pytest.approx(one, rel=0.03)
    assert all(parameter.dtype == torch.float32 for parameter in half.model.parameters())


def test_a_loss_that_is_not_finite_is_found_one_step_later(batches: list[Batch]) -> None:
    one = learner()
    with torch.no_grad():
        next(one.model.parameters()).fill_(float("nan"))
    one.train_step(batches[0])
    with pytest.raises(NonFiniteError, match="The loss is nan at step 1"):
        one.require_finite()


@pytest.mark.parametrize("part", ["model", "result"])
def test_weights_that_are_not_finite_are_not_saved(part: str) -> None:
    own = learner(recipe=replace(digits(), ema_decay=0.9))
    own.require_finite_weights()
    with torch.no_grad():
        next(getattr(own, part).parameters()).view(-1)[0] = float("inf")
    with pytest.raises(NonFiniteError, match="Weights of the model are NaN or infinite at step 0"):
        own.require_finite_weights()


def test_rows_of_weight_zero_teach_nothing(batches: list[Batch]) -> None:
    batch = replace(batches[0], weight_B=np.zeros(BATCH, np.float32))
    one = learner()
    assert float(one.train_step(batch).total) == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in one.model.parameters())


def test_targets_keep_padding_of_both_index_types(batches: list[Batch]) -> None:
    for dtype in (np.uint16, np.uint32):
        padded = replace(records(0), index=np.full((BATCH, 2), np.iinfo(dtype).max, dtype))
        targets = Targets.of(replace(batches[0], records=padded), CPU)
        assert targets.index_BK is not None and targets.index_BK.element_size() == dtype().itemsize
        assert int(targets.index_BK.long().min()) == np.iinfo(dtype).max
