"""Weights of a teacher in a student: where the cut falls, that the copied part computes the same, what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_cases import count, images, make, on_meta, swin, tinyvit, vit
from torch import Tensor, nn

from students.transfer import block_names, freeze, frozen_modules, transfer

PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int]] = {
    "swin_t to swin_n": (lambda: swin(2, 2, 6, 2, seed=0), lambda: swin(2, 2, 2, 2, seed=1), 6),
    "swin_t to swin_m": (lambda: swin(2, 2, 6, 2, seed=0), lambda: swin(2, 2, 4, 2, seed=1), 8),
    "tinyvit, third stage of 2": (lambda: tinyvit(2, 2, 6, 2, seed=0), lambda: tinyvit(2, 2, 2, 2, seed=1), 6),
    "tinyvit, second stage of 1": (lambda: tinyvit(2, 2, 6, 2, seed=0), lambda: tinyvit(2, 1, 6, 2, seed=1), 3),
    "vit": (lambda: vit(4, seed=0), lambda: vit(2, seed=1), 2),
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, int]:
    """A teacher, a student with its copied weights, and the cut."""
    make_teacher, make_student, cut = PAIRS[request.param]
    teacher, student = make_teacher(), make_student()
    state, taken = transfer(teacher.state_dict(), student)
    assert taken.cut == cut
    student.load_state_dict(state, strict=True)
    return teacher, student, cut


def features(model: nn.Module, names: list[str]) -> list[Tensor]:
    """What these modules give for fixed images."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _given, output: found.__setitem__(name, output.detach().clone())

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(images())
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def test_features_are_equal_up_to_the_cut(pair: tuple[nn.Module, nn.Module, int]) -> None:
    teacher, student, cut = pair
    blocks = block_names(student.state_dict())
    names = ["patch_embed", *blocks[:cut]]
    for name, theirs, own in zip(names, features(teacher, names), features(student, names), strict=True):
        assert torch.equal(theirs, own), name
    assert float(features(student, blocks[cut - 1 : cut])[0].std()) > 0.01


def test_after_the_cut_the_student_is_as_it_was_made(pair: tuple[nn.Module, nn.Module, int]) -> None:
    teacher, student, _ = pair
    with torch.no_grad():
        assert not torch.allclose(teacher(images()), student(images()), atol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_what_is_trained(frozen: bool) -> None:
    for teacher_of, student_of, _ in PAIRS.values():
        student = student_of()
        state, taken = transfer(teacher_of().state_dict(), student)
        student.load_state_dict(state)
        if frozen:
            freeze(student, taken)
        student.train()
        student(images()).square().sum().backward()
        reached = {name for name, p in student.named_parameters() if p.grad is not None and bool(p.grad.any())}
        expected = {name for name, _ in student.named_parameters()}
        assert reached == (expected - taken.tensors("copied") if frozen else expected)


def test_frozen_modules_are_those_before_the_cut() -> None:
    student = tinyvit(2, 2, 2, 2, seed=1)
    assert frozen_modules(student) == []
    _, taken = transfer(tinyvit(2, 2, 6, 2, seed=0).state_dict(), student, cut=5)
    freeze(student, taken)
    names = ["patch_embed", "stages.0", "stages.1", "stages.2.downsample", "stages.2.blocks.0"]
    assert frozen_modules(student) == [student.get_submodule(name) for name in names]


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (lambda: swin(2, 2, 2, 2, seed=0), lambda: swin(2, 2, 2, 2, seed=1)),
        (lambda: tinyvit(2, 2, 6, 2, seed=0), lambda: tinyvit(2, 2, 6, 2, seed=1)),
        (lambda: vit(2, seed=0), lambda: vit(2, seed=1)),
        (lambda: make("test_efficientnet", seed=0), lambda: make("test_efficientnet", seed=1)),
        (lambda: make("resnet18", seed=0), lambda: make("resnet18", seed=1)),
    ],
    ids=["swin", "tinyvit", "vit", "efficientnet", "resnet18"],
)
def test_the_same_architecture_gives_the_same_outputs(
    teacher: Callable[[], nn.Module], student: Callable[[], nn.Module]
) -> None:
    first, second = teacher(), student()
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    state, taken = transfer(first.state_dict(), second)
    assert all(torch.equal(before[name], tensor) for name, tensor in second.state_dict().items()), "changed in place"
    assert taken.cut is None and taken.merging is None and {part.kind for part in taken.parts} == {"copied"}
    second.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert torch.equal(first(images()), second(images()))


def plain_mask(side: int, window: int, shift: int) -> np.ndarray[Any, Any]:
    """Which tokens of a shifted window may not see each other: the cyclic shift brought only one of them across."""
    mask = np.zeros(((side // window) ** 2, window**2, window**2), np.float32)
    for number, (top, left) in enumerate((y, x) for y in range(0, side, window) for x in range(0, side, window)):
        tokens = [(top + y, left + x) for y in range(window) for x in range(window)]
        wrapped = [(y + shift >= side, x + shift >= side) for y, x in tokens]
        for a, one in enumerate(wrapped):
            for b, other in enumerate(wrapped):
                mask[number, a, b] = 0.0 if one == other else -100.0
    return mask


def test_masks_of_shifted_windows_follow_from_the_size_and_are_never_copied() -> None:
    teacher, student = swin(2, 2, 6, 2, seed=0), swin(2, 2, 2, 2, seed=1)
    stored = ("layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index")
    foreign = dict.fromkeys(stored, torch.ones(1))
    state, _ = transfer(teacher.state_dict() | foreign, student)
    student.load_state_dict(state, strict=True)
    for stage, side in enumerate((56, 28, 14, 7)):
        for number, block in enumerate(student.get_submodule(f"layers.{stage}.blocks").children()):
            mask = block.attn_mask
            if number % 2 == 0 or side == 7:  # one window sees the whole map: nothing is shifted
                assert mask is None
            else:
                assert isinstance(mask, Tensor)
                assert np.array_equal(mask.numpy(), plain_mask(side, 7, 3))
    index = student.get_submodule("layers.0.blocks.0.attn").relative_position_index
    assert isinstance(index, Tensor) and index.shape == (49, 49)


def of_swin(depths: tuple[int, ...], cut: int) -> set[str]:
    """Names of the modules of a Swin that lie before the cut, counted by hand."""
    names, number = {"patch_embed"}, 0
    for stage, depth in enumerate(depths):
        for block in range(depth):
            if number < cut:
                names.add(f"layers.{stage}.blocks.{block}")
                names |= {f"layers.{stage}.downsample"} if stage else set()
            number += 1
    return names


@settings(max_examples=12)
@given(st.data())
def test_any_depths_and_any_cut(data: st.DataObject) -> None:
    depth = st.integers(1, 3)
    theirs, own = (data.draw(st.tuples(depth, depth, depth)) for _ in range(2))
    small: dict[str, Any] = {"embed_dim": 4, "num_heads": (1, 1, 1), "window_size": 2, "img_size": 32}
    teacher, student = swin(*theirs, seed=0, **small), swin(*own, seed=1, **small)
    places = [[(i, j) for i, depth in enumerate(depths) for j in range(depth)] for depths in (theirs, own)]
    shared = next((i for i, (a, b) in enumerate(zip(*places, strict=False)) if a != b), min(map(len, places)))
    cut = data.draw(st.none() if theirs == own else st.none() | st.integers(1, shared))
    state, taken = transfer(teacher.state_dict(), student, cut=cut)
    if theirs == own:
        assert taken.cut is None
        return
    assert taken.cut == (shared if cut is None else cut)
    before = of_swin(own, taken.cut)
    assert {part.module for part in taken.parts if part.kind == "copied"} == before
    for name, tensor in state.items():
        copied = any(name.startswith(f"{module}.") for module in before)
        assert torch.equal(tensor, (teacher if copied else student).state_dict()[name]), name


@pytest.mark.parametrize(("name", "cut", "blocks"), [("swin_n", 6, 8), ("swin_m", 8, 10)])
def test_the_cuts_of_the_paper(name: str, cut: int, blocks: int) -> None:
    student = on_meta(name)
    _, taken = transfer(on_meta("swin_t").state_dict(), student)
    # At width d with h heads: a block has 12 d^2 + 13 d + 169 h parameters, the merging before it 2 d^2 + 4 d.
    after = 2 * (12 * 768**2 + 13 * 768 + 169 * 24) + 2 * 768**2 + 4 * 768 + 2 * 768 + 769 * 100
    assert taken.parameters("initialised") == after
    assert taken.parameters("copied") == count(student) - after
    lines = taken.lines()
    assert lines[0] == (
        f"Cut after block {cut}: T[:{cut}] of the teacher's 12 blocks is copied; 2 of the student's {blocks} blocks "
        "are initialised."
    )
    assert f"layers.2.blocks.0-{cut - 5} (before the cut)" in lines[1]
    assert "layers.3.downsample, layers.3.blocks.0-1, norm, head.fc (after the cut" in lines[2]
    assert lines[3].strip() == (
        "The patch merging before the last stage, layers.3.downsample, belongs to the block after it (block "
        f"{cut + 1} of {blocks}): it lies after the cut and is initialised."
    )
    assert list(taken.to_dict()) == ["cut", "teacher_blocks", "student_blocks", "copied", "initialised"]


def test_a_cut_in_the_last_stage_copies_its_merging() -> None:
    _, taken = transfer(on_meta("swin_t").state_dict(), on_meta("swin_t"), cut=11)
    assert taken.merging is not None and taken.merging.endswith("it lies before the cut and is copied.")
    assert taken.tensors("initialised") >= {"norm.weight", "head.fc.weight", "layers.3.blocks.1.norm1.weight"}
    assert "layers.3.downsample.reduction.weight" in taken.tensors("copied")


@pytest.mark.parametrize(
    ("teacher", "student", "cut", "message"),
    [
        ("swin_t", "swin_n", 0, "cut must lie between 1 and 6, got 0"),
        ("swin_t", "swin_n", 7, "cut must lie between 1 and 6, got 7: the first 6 of the teacher's 12 blocks"),
        ("swin_b", "swin_n", None, "another width: patch_embed.proj.weight has shape [128, 3, 4, 4] in them and [96,"),
        ("deit_s", "deit_ti", None, "another width: cls_token"),
        ("swin_t", "tinyvit_5m", None, "another family: they begin with layers.0.blocks.0, the student begins with st"),
        ("resnet18", "swin_n", None, "another family: they have no blocks"),
        ("resnet34", "resnet18", None, "another family: they have layer1.2.bn1.bias (and"),
        ("resnet18", "resnet34", None, "another family: they have no layer1.2.bn1.bias (and"),
        ("resnet18", "resnet18", 2, "no blocks to cut between"),
        ("swinv2_tiny_window8_256", "swin_t", None, "another family: they have no layers.0.blocks.0.attn.qkv.bias"),
        ("deit_tiny_distilled_patch16_224", "deit_ti", None, "another family: they have dist_token"),
    ],
)
def test_what_does_not_fit_is_refused(teacher: str, student: str, cut: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        transfer(on_meta(teacher).state_dict(), on_meta(student), cut=cut)


def test_other_heads_of_the_same_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"another width: layers\.0\.blocks\.0\.attn\.relative_position_bias_table"):
        transfer(swin(1, 1, 1, 1, seed=0, num_heads=(2, 2, 4, 8)).state_dict(), swin(1, 1, 1, 1, seed=1))


def test_freezing_all_is_refused() -> None:
    student = vit(1, seed=1)
    _, taken = transfer(vit(1, seed=0).state_dict(), student)
    with pytest.raises(ValueError, match="nothing would be left to train"):
        freeze(student, taken)
    assert all(parameter.requires_grad for parameter in student.parameters())
