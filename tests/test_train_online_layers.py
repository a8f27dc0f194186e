"""What is compared of a student and of a teacher in memory: the right parts of the right layers, or a refusal."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from learner_cases import CPU, make_batches
from loss_cases import plain_relation_loss
from online_cases import SIZE, beside, layers_by_hand, mini_swin, swin, vit
from torch import Tensor, nn

from logitstore.device import normalise
from logitstore.errors import InputError
from logitstore.learning.beside import InnerLosses
from logitstore.online.layers import find_layers
from logitstore.online.matching import choose_match, parse_match
from logitstore.online.teacher import OnlineTeacher

VIEWS = torch.from_numpy(make_batches()[0].views_BCHW[:4])
WEIGHT = torch.tensor([1.0, 0.0, 0.5, 2.0])
STUDENT = normalise(VIEWS, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), CPU)
TEACHER = normalise(VIEWS, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), CPU)


def losses(online: OnlineTeacher, student: nn.Module) -> InnerLosses:
    with online.watching() as of:
        student(STUDENT)
    return of(VIEWS, WEIGHT)


def by_hand(student: nn.Module, online: OnlineTeacher, skip: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """Both losses in float64."""
    teacher: Any = online.teacher.model
    own, theirs = (
        layers_by_hand(model.double().eval(), images.double())
        for model, images in ((deepcopy(student), STUDENT), (deepcopy(teacher.inner), TEACHER))
    )
    attention, hidden = [], []
    for one, other in online.match:
        (windows, tokens), (their_windows, their_tokens) = own[one], theirs[other]
        covered = [part.shape[2] for part in windows]
        values = [
            plain_relation_loss(part[:, :, skip[0] :], their_part[:, :, skip[1] :], WEIGHT.double())
            for part, their_part in zip(windows, their_windows, strict=True)
        ]
        attention.append(sum(value * count for value, count in zip(values, covered, strict=True)) / sum(covered))
        hidden.append(
            plain_relation_loss(tokens[:, None, skip[0] :], their_tokens[:, None, skip[1] :], WEIGHT.double())
        )
    return torch.stack(attention).mean(), torch.stack(hidden).mean()


@pytest.mark.parametrize(
    ("student", "teacher", "match", "skip"),
    [
        (vit(16), "vit_teacher", None, (0, 0)),
        (vit(16), "vit_teacher", ("5:1", "0:4", "2:4"), (0, 0)),
        (vit(16, class_token=False, global_pool="avg"), "vit_teacher", None, (0, 1)),
        (vit(16), "vit_teacher_without_token", None, (1, 0)),
        (swin(16), "swin_teacher", None, (0, 0)),
        (swin(16, depths=(2, 2)), "swin_teacher", ("3:5", "1:1", "0:0"), (0, 0)),
        (swin(16, window_size=(3, 5)), "swin_teacher_of_odd_windows", None, (0, 0)),
        (mini_swin(16), "swin_teacher", None, (0, 0)),
    ],
    ids=["vit", "named", "teachers-token", "students-token", "swin", "fewer-blocks", "padding", "shared-weights"],
)
def test_losses_are_those_of_the_matched_layers(
    student: nn.Module, teacher: str, match: tuple[str, ...] | None, skip: tuple[int, int]
) -> None:
    online = beside(student, teacher, match=match)
    found = losses(online, student)
    for value, expected in zip(found, by_hand(student, online, skip), strict=True):
        assert value is not None and value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    said = online.notes([{"sha256": online.teacher.sha256}])
    assert any("Class tokens" in note for note in said) == (skip != (0, 0))
    assert not any("other weights" in note for note in said)


def test_nothing_stays_in_either_model() -> None:
    student = vit(16)
    online = beside(student, "vit_teacher")
    assert isinstance(online.teacher.model, nn.Module)
    models = [*student.modules(), *online.teacher.model.modules()]
    before = student.state_dict().keys()

    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in models)

    assert hooks() == 0
    with online.watching() as of:
        assert hooks() > 0
        student(STUDENT)
    assert hooks() == 0
    of(VIEWS, WEIGHT)
    assert hooks() == 0 and student.state_dict().keys() == before
    with pytest.raises(ValueError, match="unpack"), online.watching():
        student(STUDENT.flatten())
    assert hooks() == 0


def test_the_teacher_learns_nothing_and_sees_its_own_images() -> None:
    student = vit(16)
    online = beside(student, "vit_teacher")
    teacher: Any = online.teacher.model
    attention, hidden = losses(online, student)
    assert attention is not None and hidden is not None
    (attention + hidden).backward()
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())
    torch.testing.assert_close(teacher.seen[-1], TEACHER)
    # Keys' biases add the same to each column of a row of R_12, but not to those of other pairs.
    reached = {name for name, value in student.named_parameters() if value.grad is not None and value.grad.any()}
    assert {f"blocks.{number}.attn.qkv.bias" for number in range(6)} <= reached
    assert not any(name.startswith(("norm.", "head.")) for name in reached)


@pytest.mark.parametrize(("weights", "absent"), [((0.0, 0.1), 0), ((2.0, 0.0), 1)], ids=["hidden", "attention"])
def test_a_weight_of_zero_leaves_a_loss_out(weights: tuple[float, float], absent: int) -> None:
    student = vit(16)
    online = beside(student, "vit_teacher", attention_weight=weights[0], hidden_weight=weights[1])
    found = losses(online, student)
    assert found[absent] is None and found[1 - absent] is not None


def test_hidden_states_need_no_equal_windows() -> None:
    student = swin(16)
    with pytest.raises(InputError, match=r"windows of layer 5 of the student \(1 of 4x4.*--attention-weight 0"):
        beside(student, "vit_teacher_without_token", match=("5:5",))
    online = beside(student, "vit_teacher_without_token", match=("5:5",), attention_weight=0.0)
    assert losses(online, student).hidden is not None


@pytest.mark.parametrize(
    ("student", "teacher", "match", "sentence"),
    [
        (vit(16), "convolutional_teacher", None, "has no attention layers .* these the store serves; leave out"),
        (vit(16), "bare_teacher", None, "is no torch module, so nothing inside of it can be compared"),
        (swin(16), "convolutional_teacher", None, "online_cases:convolutional_teacher has no attention layers"),
        (vit(16), "vit_teacher_of_coarse_patches", None, "map of layer 5 of the student has 16 tokens, .* teacher 4,"),
        (swin(16), "swin_teacher", ("1:3",), "map of layer 1 of the student has 64 tokens, .* teacher 16,"),
        (swin(16), "swin_teacher", ("1:0",), r"4x4, shifted by 2 and 2\) are not .* \(4 of 4x4, shifted by 0 and 0"),
        (swin(16), "swin_teacher_of_long_windows", None, r"layer 1 .*4 of 4x4.* are not .*2 of 8x4"),
        (vit(16), "vit_teacher", ("5:5", "6:1"), "--match 6:1 names layer 6 of the student, which has 0 to 5"),
        (vit(16), "vit_teacher", ("1:6",), "--match 1:6 names layer 6 of the teacher, which has 0 to 5"),
        (vit(16), "deep_vit_teacher", None, "student has 6 layers and the teacher 8.*as in --match 5:7"),
        (swin(16, depths=(2, 2)), "swin_teacher", None, "student has 4 layers and the teacher 6.*--match 3:5,1:1"),
    ],
    ids=["cnn", "function", "cnn-of-swin", "patches", "map", "shift", "size", "student", "teacher", "deeper", "stages"],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(
    student: nn.Module, teacher: str, match: tuple[str, ...] | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        beside(student, teacher, match=match)


def test_a_student_that_drops_patches_is_refused() -> None:
    with pytest.raises(InputError, match=r"student drops patches in training.*leave out --student-arg patch_drop_rate"):
        beside(vit(16, patch_drop_rate=0.25), "vit_teacher")


def test_a_student_without_attention_is_refused() -> None:
    with pytest.raises(InputError, match=r"student has no attention layers.* train a student that is one of these"):
        beside(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "vit_teacher")


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ((2, 2, 6, 2), (2, 2, 18, 2), "11:23,9:21,7:15,5:9,3:3,1:1"),
        ((2, 2, 18, 2), (2, 2, 18, 2), "23:23,21:21,15:15,9:9,3:3,1:1"),
        ((2, 2, 6, 2), (2, 2, 6, 2), "11:11,9:9,7:7,5:5,3:3,1:1"),
        ((5,), (5,), "4:4,2:2,0:0"),
    ],
    ids=["mini-swin-t", "mini-swin-s", "twelve", "odd"],
)
def test_layers_match_as_in_the_reference(student: tuple[int, ...], teacher: tuple[int, ...], expected: str) -> None:
    model, other = (swin(8, depths=depths, img_size=64) if len(depths) > 1 else vit(8, depth=5)
                    for depths in (student, teacher))  # fmt: skip
    size = 64 if len(student) > 1 else SIZE
    own, theirs = (
        find_layers(one, lambda one=one: one(torch.zeros(1, 3, size, size)), name="it", remedy="no")
        for one in (model, other)
    )
    assert choose_match(own, theirs) == parse_match(expected.split(","))


@pytest.mark.parametrize("text", ["1", "1:2:3", "a:1", "1:-1", ""])
def test_a_pair_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"--match takes pairs of layers.* got {text}\.$"):
        parse_match(["3:3", text])


def test_a_pair_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="names the pair 1:2 twice"):
        parse_match(["1:2", "2:2", "1:2"])


def test_a_layer_of_a_single_token_is_told() -> None:
    student = swin(8, depths=(2, 2), patch_size=16)
    online = beside(student, "swin_teacher_of_coarse_patches")
    assert online.match == ((3, 3), (1, 1))
    (note,) = [note for note in online.notes([]) if "single token" in note]
    assert note.startswith("Layers matched as 3:3 have a single token at 32 px")


def test_views_of_weight_zero_do_not_count() -> None:
    student = swin(16)
    online = beside(student, "swin_teacher")
    before = losses(online, student)
    views, images = VIEWS.clone(), STUDENT.clone()
    views[1], images[1] = 255 - views[1], -images[1]
    with online.watching() as of:
        student(images)
    for value, expected in zip(of(views, WEIGHT), before, strict=True):
        assert value is not None and value.item() == pytest.approx(expected.item(), rel=1e-6)
