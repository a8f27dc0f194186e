"""What a step minimises: which losses a recipe means, how they are joined, and that pieces change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_cases import BATCH, CLASSES, CPU, SOFT, gradients, learner, make_batches, weights
from torch import Tensor, nn

from logitstore.device import normalise
from logitstore.learning.criterion import Criterion, Parts, Targets, make_criterion
from logitstore.loader import Batch
from students.recipes import Recipe, digits

RECIPE = replace(digits(), batch_size=BATCH, warmup_epochs=0.0, clip_grad=None)
HARMONIC = replace(RECIPE, joint="harmonic", harmonic_weights=(3.0, 1.0), label_smoothing=0.1)
RATIO = replace(RECIPE, joint="ratio")
FIXED = replace(RECIPE, joint="alpha", alpha=(0.25, 0.25))
KL = replace(RECIPE, distillation="kl", temperature=4.0)
MSE = replace(RECIPE, distillation="mse")
LABELS = replace(RECIPE, distillation="none")
JOINTS = {"harmonic": HARMONIC, "ratio": RATIO, "alpha": FIXED}


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Mixed views with labels and records; the first batch has rows of weight 0, so that pieces weigh differently."""
    made = make_batches(mixed=True)
    weight_B = np.ones(BATCH, np.float32)
    weight_B[:6] = 0.0
    return [replace(made[0], weight_B=weight_B), *made[1:]]


def wanted(recipe: Recipe, logits_BC: Tensor, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """L_d and L_s of a batch, from dense targets and torch's own losses, in float64."""
    weight_B = torch.from_numpy(batch.weight_B).double()
    scale = recipe.temperature

    def mean(loss_B: Tensor) -> Tensor:
        return (loss_B * weight_B).sum() / weight_B.sum()

    log_student_BC = torch.log_softmax(logits_BC / scale, 1)
    one_hot_CC = torch.eye(CLASSES, dtype=torch.float64)
    own_B1 = torch.from_numpy(batch.own_B)[:, None]
    label_BC = own_B1 * one_hot_CC[batch.label_B] + (1 - own_B1) * one_hot_CC[batch.partner_label_B]
    smoothing = recipe.label_smoothing
    labels = mean(nn.functional.cross_entropy(logits_BC, label_BC, reduction="none", label_smoothing=smoothing))
    if recipe.distillation == "none":
        return None, labels
    if recipe.distillation == "mse":
        assert batch.logits_BC is not None
        distillation = mean((logits_BC - torch.from_numpy(batch.logits_BC).double()).square().mean(1))
    else:
        assert batch.records is not None
        kept, index_BK = batch.records, torch.from_numpy(batch.records.index.astype(np.int64))
        residual_BC = torch.from_numpy(kept.tail).double()[:, None].repeat(1, CLASSES) / 2  # two of four are kept
        target_BC = residual_BC.scatter(1, index_BK, torch.from_numpy(kept.prob).double()) ** (1 / scale)
        target_BC = target_BC / target_BC.sum(1, keepdim=True)
        distillation = mean(-(target_BC * log_student_BC).sum(1))
        if recipe.distillation == "kl":
            distillation = scale**2 * (distillation - mean(-(target_BC * target_BC.log()).sum(1)))
    return distillation, labels if recipe.uses_labels else None


def joined(recipe: Recipe, distillation: Tensor | None, labels: Tensor | None) -> Tensor:
    """The joint loss by its formula, its gradient by autograd."""
    if distillation is None or labels is None:
        single = labels if distillation is None else distillation
        assert single is not None
        return single
    if recipe.joint == "harmonic":
        weight_d, weight_s = recipe.harmonic_weights
        return (weight_d + weight_s) / (weight_d / distillation + weight_s / labels)
    alpha = recipe.alpha[0]
    if recipe.joint == "ratio":
        alpha = distillation.item() / (labels + distillation).item()
    return (1 - alpha) * distillation + alpha * labels


def reference(recipe: Recipe, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of a step in one piece: the same student, losses and joint loss in float64."""
    one = learner(recipe=recipe, drop_path=0.0)
    one.model.double().train()
    images_BCHW = normalise(torch.from_numpy(batch.views_BCHW), one.preprocessing.mean, one.preprocessing.std, CPU)
    loss = joined(recipe, *wanted(recipe, one.model(images_BCHW.double()), batch))
    loss.backward()
    return loss.item(), gradients(one)


def same(found: dict[str, Tensor], expected: dict[str, Tensor], *, rel: float = 1e-4) -> bool:
    """Whether two gradients differ by no more than a share of the whole gradient's length."""
    assert found.keys() == expected.keys()
    length = torch.stack([value.double().norm() for value in expected.values()]).norm()
    apart = torch.stack([(found[name].double() - expected[name].double()).norm() for name in expected]).norm()
    return bool(apart <= rel * length)


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, KL, MSE, LABELS, *JOINTS.values(), replace(KL, joint="harmonic"), replace(MSE, joint="ratio")],
    ids=["soft", "kl", "mse", "labels", *JOINTS, "kl-harmonic", "mse-ratio"],
)
def test_a_step_has_the_loss_and_gradient_of_the_recipe(batches: list[Batch], recipe: Recipe) -> None:
    batch = batches[0]
    if recipe.distillation == "mse":
        batch = replace(make_batches(mixed=True, logits=True)[0], weight_B=batch.weight_B)
    expected_loss, expected = reference(recipe, batch)
    one = learner(recipe=recipe, criterion=make_criterion(recipe), drop_path=0.0)
    assert float(one.train_step(batch).total) == pytest.approx(expected_loss, rel=1e-5)
    assert same(gradients(one), expected)


@pytest.mark.parametrize("recipe", JOINTS.values(), ids=JOINTS)
def test_a_joint_loss_in_pieces_is_that_of_the_whole(batches: list[Batch], recipe: Recipe) -> None:
    """Each piece of its own would have another loss, which is what the last lines show."""
    found = {}
    for accumulate in (1, 4):
        one = learner(recipe=recipe, criterion=make_criterion(recipe), drop_path=0.0, accumulate=accumulate)
        numbers = one.train_step(batches[0]).numbers()
        found[accumulate] = numbers, gradients(one)
    assert found[4][0] == pytest.approx(found[1][0], rel=1e-5)
    assert same(found[4][1], found[1][1], rel=1e-5)
    per_piece = learner(recipe=recipe, criterion=Naive(make_criterion(recipe)), drop_path=0.0, accumulate=4)
    per_piece.train_step(batches[0])
    assert same(gradients(per_piece), found[1][1], rel=1e-3) == (recipe.joint == "alpha")


class Naive(Criterion):
    """Joins the losses of each piece on their own, as if these were additive."""

    def __init__(self, inner: Criterion) -> None:
        super().__init__(**vars(inner))

    @property
    def needs_losses(self) -> bool:
        return False


def test_batch_norm_sees_a_batch_in_pieces_once(batches: list[Batch]) -> None:
    """Before the first step the weights are the same, so the statistics after it depend on the pieces alone."""
    states = []
    for recipe in (FIXED, HARMONIC, RATIO):
        one = learner("test_efficientnet", recipe, criterion=make_criterion(recipe), accumulate=4)
        one.train_step(batches[1])
        states.append({name: buffer.clone() for name, buffer in one.model.named_buffers()})
    assert any(name.endswith("running_mean") and value.abs().max() > 0 for name, value in states[0].items())
    assert all(int(value) == 4 for name, value in states[0].items() if name.endswith("num_batches_tracked"))
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet"])
def test_both_passes_over_a_batch_see_the_same_network(batches: list[Batch], model: str) -> None:
    """Stochastic depth draws the same masks, and BatchNorm normalises by the same pieces."""
    one = learner(model, HARMONIC, criterion=make_criterion(HARMONIC), accumulate=4, drop_path=0.5)
    seen: dict[bool, list[Tensor]] = {False: [], True: []}
    one.model.register_forward_hook(lambda _m, _i, output: seen[output.requires_grad].append(output.detach().clone()))
    one.train_step(batches[1])
    assert len(seen[False]) == len(seen[True]) == 4
    assert all(torch.equal(*pair) for pair in zip(seen[False], seen[True], strict=True))
    if model == "test_vit":  # the other one has no stochastic depth at this size
        other = learner(model, HARMONIC, criterion=make_criterion(HARMONIC), accumulate=4, drop_path=0.5, seed=4)
        other.model.register_forward_hook(lambda _m, _i, output: seen[False].append(output.detach()))
        other.train_step(batches[1])
        assert not torch.equal(seen[False][0], seen[False][4])


@pytest.mark.parametrize(
    ("recipe", "passes"), [(FIXED, 1), (RECIPE, 1), (HARMONIC, 2)], ids=["alpha", "soft", "harmonic"]
)
def test_only_what_needs_a_second_pass_has_one(batches: list[Batch], recipe: Recipe, passes: int) -> None:
    for accumulate, expected in ((1, 1), (4, 4 * passes)):
        one = learner(recipe=recipe, criterion=make_criterion(recipe), accumulate=accumulate)
        calls: list[int] = []
        one.model.register_forward_hook(lambda *_args, calls=calls: calls.append(1))
        one.train_step(batches[1])
        assert len(calls) == expected


def test_a_linear_alpha_is_a_function_of_the_step_from_the_first_to_the_last(batches: list[Batch]) -> None:
    recipe = replace(RECIPE, epochs=2, joint="alpha", alpha=(0.0, 0.5))

    def fresh(accumulate: int = 1):
        return learner(recipe=recipe, criterion=make_criterion(recipe), accumulate=accumulate)

    whole = fresh()
    alphas = [whole.train_step(batch).numbers()["alpha"] for batch in batches * 2]
    assert alphas == pytest.approx([0.5 * step / 7 for step in range(8)])
    resumed = fresh(accumulate=2)
    state = fresh()
    for batch in batches[:3]:
        state.train_step(batch)
    resumed.load_state_dict(state.state_dict())
    assert resumed.train_step(batches[3]).numbers()["alpha"] == alphas[3]


def test_a_run_of_a_single_step_has_the_first_alpha(batches: list[Batch]) -> None:
    recipe = replace(RECIPE, epochs=1, joint="alpha", alpha=(0.25, 0.5))
    one = learner(recipe=recipe, criterion=make_criterion(recipe), steps_per_epoch=1)
    assert one.train_step(batches[1]).numbers()["alpha"] == 0.25


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (RECIPE, {"loss_distillation"}),
        (LABELS, {"loss_labels"}),
        (replace(RECIPE, joint="alpha"), {"loss_distillation"}),
        (FIXED, {"loss_distillation", "loss_labels", "alpha"}),
        (RATIO, {"loss_distillation", "loss_labels", "alpha"}),
        (HARMONIC, {"loss_distillation", "loss_labels"}),
    ],
    ids=["soft", "labels", "alpha-0", "alpha", "ratio", "harmonic"],
)
def test_the_parts_that_there_are_can_be_logged(batches: list[Batch], recipe: Recipe, names: set[str]) -> None:
    numbers = learner(recipe=recipe, criterion=make_criterion(recipe)).train_step(batches[1]).numbers()
    assert numbers.keys() == {"loss", *names}
    if "alpha" in names:
        alpha = numbers["alpha"]
        parts = (1 - alpha) * numbers["loss_distillation"] + alpha * numbers["loss_labels"]
        assert numbers["loss"] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", [HARMONIC, replace(KL, joint="ratio")], ids=["harmonic", "kl-ratio"])
def test_half_precision_joins_losses_in_float32(batches: list[Batch], dtype: torch.dtype, recipe: Recipe) -> None:
    full, half = (
        learner(recipe=recipe, criterion=make_criterion(recipe), dtype=kind, accumulate=2)
        for kind in (torch.float32, dtype)
    )
    for batch in batches * 2:
        one, other = full.train_step(batch), half.train_step(batch)
        assert other.total.dtype == torch.float32
        assert all(part.dtype == torch.float32 for part in other.parts.both)
        assert float(other.total) == pytest.approx(float(one.total), rel=0.03)
    before = weights(half.model)
    half.train_step(batches[1])
    assert any(not torch.equal(before[name], value) for name, value in weights(half.model).items())


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("recipe", JOINTS.values(), ids=JOINTS)
def test_a_batch_without_weight_teaches_nothing(batches: list[Batch], recipe: Recipe, accumulate: int) -> None:
    batch = replace(batches[1], weight_B=np.zeros(BATCH, np.float32))
    one = learner(recipe=recipe, criterion=make_criterion(recipe), accumulate=accumulate)
    assert float(one.train_step(batch).total) == 0.0
    assert not any(gradient.any() for gradient in gradients(one).values())


def test_a_student_that_has_learnt_its_teacher_stops_learning_from_labels() -> None:
    """The harmonic mean collapses at a distillation loss of 1e-8 and at 0, with finite gradients."""
    logits_BC = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0))
    criterion = make_criterion(replace(MSE, joint="harmonic"))
    label_B = torch.zeros(BATCH, dtype=torch.int64)
    for shift in (1e-4, 0.0):
        student_BC = (logits_BC + shift).requires_grad_()
        targets = Targets(
            weight_B=torch.ones(BATCH), label_B=label_B, partner_label_B=label_B, own_B=torch.ones(BATCH),
            teacher_BC=logits_BC,
        )
        parts = criterion.parts(student_BC, targets)
        assert float(parts.both[0].detach()) == pytest.approx(shift**2, rel=1e-2, abs=1e-12)
        criterion.coefficients(parts.each(Tensor.detach), 0.0).join(parts).backward()
        expected = 14 / 13 * 2 * (student_BC.detach() - logits_BC) / (BATCH * CLASSES)
        torch.testing.assert_close(student_BC.grad, expected, rtol=1e-4, atol=1e-12)


def test_targets_take_logits_in_place_of_records() -> None:
    batch = make_batches(logits=True)[0]
    targets = Targets.of(batch, CPU)
    assert targets.teacher_BC is not None and targets.index_BK is None
    assert torch.equal(targets.rows(slice(2, 5)).teacher_BC, torch.from_numpy(batch.logits_BC[2:5]))
    assert Targets.of(make_batches()[0], CPU).teacher_BC is None


def test_parts_add_up() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    total = Parts(distillation=one, labels=two) + Parts(distillation=two, labels=two)
    assert [float(value) for value in total.both] == [3.0, 4.0]
    assert (Parts(labels=one) + Parts(labels=two)).distillation is None


@pytest.mark.parametrize("joint", ["alpha", "ratio", "harmonic"])
def test_a_joint_loss_wants_two_losses(joint: str) -> None:
    with pytest.raises(AssertionError, match="1 losses"):
        replace(SOFT, joint=joint)
