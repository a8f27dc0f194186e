"""Weights in another shape: classifiers of other classes, other resolutions, layouts of reference implementations."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from student_cases import count, images, on_meta, swin, tinyvit, vit
from timm.models import swin_transformer, tiny_vit
from torch import Tensor, nn

from students.transfer import freeze, transfer

# Classifiers


def heads(theirs: list[str] | None, own: list[str] | None, rows: int, wanted: int) -> tuple[Tensor, Tensor, str, str]:
    teacher, student = vit(1, seed=0, num_classes=rows), vit(1, seed=1, num_classes=wanted)
    state, taken = transfer(teacher.state_dict(), student, teacher_classes=theirs, student_classes=own)
    student.load_state_dict(state, strict=True)
    (part,) = [part for part in taken.parts if part.module == "head"]
    before, after = (torch.cat([s["head.weight"], s["head.bias"][:, None]], 1) for s in (teacher.state_dict(), state))
    return before, after, part.kind, part.reason


def test_rows_are_mapped_by_class_name_and_others_take_the_mean() -> None:
    names = ["cat", "dog", "owl", "ape", "bee"]
    theirs, own, kind, reason = heads(names, ["bee", "yak", "cat"], 5, 3)
    mean = theirs.double().numpy().mean(0)
    assert kind == "mapped" and reason == "2 rows by class name from 5; 1 without one take the mean of all rows: yak"
    assert torch.equal(own[0], theirs[4]) and torch.equal(own[2], theirs[0])
    np.testing.assert_allclose(own[1].numpy(), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("theirs", "own", "rows", "wanted", "kind", "reason"),
    [
        (["a", "b", "c"], ["a", "b", "c"], 3, 3, "copied", "the same classes"),
        (["a", "b", "c"], ["c", "b", "a"], 3, 3, "mapped", "3 rows by class name from 3"),
        (None, None, 3, 3, "copied", "as many classes, not compared by name"),
        (None, ["a", "b", "c"], 3, 3, "copied", "as many classes, not compared by name"),
        (None, None, 3, 2, "initialised", "3 classes became 2, and class names are not known on both sides"),
        (["a", "b", "c"], ["x", "y"], 3, 2, "initialised", "none of its 2 classes is one of the teacher's 3"),
    ],
)
def test_classifiers(
    theirs: list[str] | None, own: list[str] | None, rows: int, wanted: int, kind: str, reason: str
) -> None:
    before, after, found_kind, found_reason = heads(theirs, own, rows, wanted)
    assert (found_kind, found_reason) == (kind, reason)
    if kind == "copied":
        assert torch.equal(before, after)
    elif kind == "mapped":
        assert torch.equal(before.flip(0), after)
    else:
        assert not any(torch.equal(row, other) for row in before for other in after)


def test_class_names_that_do_not_fit_the_classifier_are_refused() -> None:
    with pytest.raises(ValueError, match="There are 2 class names for the 3 classes of the teacher"):
        heads(["a", "b"], ["a"], 3, 1)


def test_weights_without_classifier_leave_it_as_it_was_made() -> None:
    headless = {name: tensor for name, tensor in vit(1, seed=0).state_dict().items() if not name.startswith("head.")}
    _, taken = transfer(headless, vit(1, seed=1))
    assert taken.tensors("initialised") == {"head.weight", "head.bias"}
    assert taken.parts[-1].reason == "the weights have no classifier"


# Resolution


@pytest.mark.parametrize(("name", "size", "parameters"), [("_384", 384, 21_230_488), ("_512", 512, 21_268_120)])
def test_tinyvit_at_other_resolutions(name: str, size: int, parameters: int) -> None:
    student = on_meta(f"tinyvit_21m{name}", 1000, size)
    state, taken = transfer(on_meta("tinyvit_21m", 1000).state_dict(), student)
    assert count(student) == parameters
    assert sum(state[key].numel() for key, _ in student.named_parameters()) == parameters
    assert {key.rpartition(".")[2] for key in taken.tensors("resized")} == {"attention_biases"}
    assert len(taken.tensors("resized")) == 10 and not taken.tensors("initialised", "mapped")


def smooth(side: int, heads: int) -> Tensor:
    """A smooth function of the offset between two tokens, sampled in the middle of each of side x side cells."""
    at = (torch.arange(side) + 0.5) / side
    rows, columns = torch.cos(math.pi * at)[:, None], at[None, :] ** 2
    return torch.stack([rows * (1 + head * columns) for head in range(heads)]).flatten(1)


@pytest.mark.parametrize("windows", [(7, 12, 24, 12), (7, 16, 32, 16)], ids=["384", "512"])
def test_smooth_attention_biases_stay_what_they_are(windows: tuple[int, ...]) -> None:
    teacher, student = tinyvit(1, 1, 2, 1, seed=0), tinyvit(1, 1, 2, 1, seed=1, window_sizes=windows)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if name.endswith("attention_biases"):
                parameter.copy_(smooth(math.isqrt(parameter.shape[1]), parameter.shape[0]))
    state, taken = transfer(teacher.state_dict(), student)
    assert len(taken.tensors("resized")) == 4
    for name in taken.tensors("resized"):
        wanted = smooth(math.isqrt(state[name].shape[1]), state[name].shape[0])
        assert float((state[name] - wanted).abs().max()) < 0.06 * float(wanted.abs().max())
    by_timm = tiny_vit.checkpoint_filter_fn(dict(teacher.state_dict()), student)
    assert all(torch.equal(by_timm[name], tensor) for name, tensor in state.items())


def test_tables_of_swin_are_resized_as_timm_does() -> None:
    teacher = swin(1, 1, 1, 1, seed=0)
    student = swin(1, 1, 1, 1, seed=1, img_size=384, window_size=12)
    state, taken = transfer(teacher.state_dict(), student)
    tables = {f"layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in range(4)}
    assert taken.tensors("resized") == tables
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how timm's interpolation indexes
        by_timm = swin_transformer.checkpoint_filter_fn(dict(teacher.state_dict()), student)
    assert all(torch.equal(by_timm[name], tensor) for name, tensor in state.items())
    old = teacher.state_dict()["layers.1.blocks.0.attn.relative_position_bias_table"].view(13, 13, 2)
    new = state["layers.1.blocks.0.attn.relative_position_bias_table"].view(23, 23, 2)
    torch.testing.assert_close(new[11, 11], old[6, 6], atol=1e-5, rtol=0)  # the same token
    torch.testing.assert_close(new[::22, ::22], old[::12, ::12], atol=1e-5, rtol=0)  # opposite corners of a window
    student.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert student(images(384, 1)).shape == (1, 10)
    reason = next(part.reason for part in taken.parts if part.kind == "resized" and part.module == "layers.1.blocks.0")
    assert reason == "to this resolution, relative_position_bias_table [169, 2] to [529, 2]"


def test_position_embeddings_are_resized() -> None:
    student = vit(1, seed=1, img_size=96)
    teacher = vit(1, seed=0)
    state, taken = transfer(teacher.state_dict(), student)
    assert taken.tensors("resized") == {"pos_embed"}
    student.load_state_dict(state, strict=True)
    token = teacher.state_dict()["pos_embed"][:, 0]
    assert torch.equal(state["pos_embed"][:, 0], token), "the class token has no place"
    assert state["pos_embed"].shape == (1, 37, 24)


def test_resized_tables_are_frozen_with_the_rest() -> None:
    student = swin(2, 1, 1, 1, seed=1, img_size=384, window_size=12)
    _, taken = transfer(swin(3, 1, 1, 1, seed=0).state_dict(), student)
    freeze(student, taken)
    frozen = {name for name, parameter in student.named_parameters() if not parameter.requires_grad}
    assert frozen == taken.tensors("copied", "resized")
    assert {re.sub(r"\..*", "", name) for name in frozen} == {"patch_embed", "layers"}


# Layouts of the reference implementations


def swin_reference(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names as in the reference: stages end with the merging; masks and indices are stored."""
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
        yield name.replace("head.fc.", "head."), tensor
    for name, buffer in model.named_buffers():
        if name.endswith(("attn_mask", "relative_position_index")):
            yield name, buffer


def test_swin_in_the_layout_of_the_reference() -> None:
    teacher, student, same = swin(2, 2, 3, 2, seed=0), swin(2, 2, 2, 2, seed=1), swin(2, 2, 3, 2, seed=2)
    published = dict(swin_reference(teacher))
    assert "layers.0.downsample.reduction.weight" in published and "layers.0.blocks.1.attn_mask" in published
    state, taken = transfer(published, student)
    expected, _ = transfer(teacher.state_dict(), student)
    assert taken.cut == 6 and all(torch.equal(state[name], expected[name]) for name in expected)
    same.load_state_dict(transfer(published, same)[0], strict=True)
    with torch.no_grad():
        assert torch.equal(same(images()), teacher(images()))
