"""Initial weights of a MiniViT: from a model that shares nothing, from less sharing, from another resolution."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from student_cases import images, make, swin, vit
from timm.layers import resample_abs_pos_embed
from torch import nn

from logitstore.initial import take_over
from students.minivit.starting import shared_names
from students.transfer import freeze, transfer
from students.transfer_map import COPIED, INITIALISED, TransferMap

SWIN = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)}
DEIT = {"embed_dim": 24, "num_heads": 2, "depth": 4}


def started(base: nn.Module, student: nn.Module) -> TransferMap:
    state, taken = transfer(base.state_dict(), student)
    student.load_state_dict(state, strict=True)
    return taken


@pytest.mark.parametrize(
    ("base", "student"),
    [
        (lambda: swin(2, 2, 6, 2, seed=0), lambda: make("mini_swin_t", seed=1, share=1, equation_mlp=True, **SWIN)),
        (lambda: vit(4, seed=0), lambda: make("mini_deit_ti", seed=1, share=1, plain=True, **DEIT)),
    ],
    ids=["Swin", "DeiT"],
)
def test_without_sharing_the_student_starts_as_the_base(base: Any, student: Any) -> None:
    base, student = base(), student()
    taken = started(base, student)
    with torch.no_grad():
        torch.testing.assert_close(student(images(count=1)), base(images(count=1)), rtol=1e-5, atol=1e-5)
    first, *others = taken.lines()
    assert first.endswith(" blocks) but for weight multiplexing.")
    assert any("Maps across heads are not in the weights: they start as identities." in line for line in others)
    freeze(student, taken)
    assert {name for name, each in student.named_parameters() if each.requires_grad} == {
        name for name, _ in student.named_parameters() if "softmax" in name or "mlp_transform" in name
    }


def test_each_group_takes_its_first_block_s_weights() -> None:
    base, student = swin(2, 2, 6, 2, seed=0), make("mini_swin_t", seed=1, share=3, **SWIN)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    taken = started(base, student)
    theirs, own = base.state_dict(), student.state_dict()
    left = sum(theirs[name].numel() for name in shared_names(student))
    assert any(f"{left:,} numbers of the others' are left" in line for line in taken.lines())
    shared = [name for name in own if "layers.2.blocks" in name and name.endswith("qkv.weight")]
    assert shared == ["layers.2.blocks.0.attn.qkv.weight", "layers.2.blocks.3.attn.qkv.weight"]
    for name in own:
        if name in taken.tensors(COPIED):
            assert torch.equal(own[name], theirs[name]), name
        else:
            assert name in taken.tensors(INITIALISED) and name not in theirs
    assert "layers.2.blocks.5.norm1.weight" in taken.tensors(COPIED)
    assert any("they start at 0, behind a norm that is not in the weights" in line for line in taken.lines())
    conv = "layers.2.blocks.5.mlp_transform.conv.weight"
    assert before[conv].any() and not own[conv].any()
    assert torch.equal(own["layers.1.blocks.1.attn.pre_softmax.weight"], torch.eye(2))


@pytest.mark.parametrize("has_position", [True, False])
def test_a_class_token_is_left_with_its_position(has_position: bool) -> None:
    base, student = vit(4, seed=0, no_embed_class=not has_position), make("mini_deit_ti", seed=1, **DEIT)
    taken = started(base, student)
    assert torch.equal(student.pos_embed, base.pos_embed[:, 1:] if has_position else base.pos_embed)
    assert not student.get_parameter("blocks.3.attn.key_positions.table").any()
    words = "\n".join(taken.lines())
    assert "The class token and its position are left: this model has none." in words
    assert "Relative positions on keys are not in the weights: they start at 0." in words


def test_weights_that_share_less_lose_the_rest() -> None:
    base = make("mini_swin_t", seed=0, share=2, **SWIN)
    student = make("mini_swin_t", seed=1, **SWIN)
    taken = started(base, student)
    assert not taken.tensors(INITIALISED)
    assert torch.equal(
        student.get_parameter("layers.2.blocks.4.attn.pre_softmax.weight"),
        base.get_parameter("layers.2.blocks.4.attn.pre_softmax.weight"),
    )
    with pytest.raises(ValueError, match=r"share what the student's have of their own \(layers\.2\.blocks\.2\.mlp"):
        transfer(student.state_dict(), base)
    with pytest.raises(ValueError, match="make the student with as much sharing as theirs"):
        transfer(student.state_dict(), swin(2, 2, 6, 2, seed=0))


@pytest.mark.parametrize(
    ("name", "shape", "larger"),
    [("mini_swin_t", SWIN, {"img_size": 384, "window_size": 12}), ("mini_deit_ti", DEIT, {"img_size": 384})],
    ids=["Swin", "DeiT"],
)
def test_tables_and_positions_are_resized_for_384_px(
    name: str, shape: dict[str, Any], larger: dict[str, Any], tmp_path: Path
) -> None:
    base, student = make(name, seed=0, **shape), make(name, seed=1, **shape, **larger)
    torch.save(base.state_dict(), tmp_path / "small.pth")
    taken = take_over(tmp_path / "small.pth", student).transfer
    resized = taken.tensors("resized")
    if name == "mini_deit_ti":
        assert resized == {"pos_embed"}
        torch.testing.assert_close(
            student.pos_embed, resample_abs_pos_embed(base.pos_embed, [24, 24], num_prefix_tokens=0)
        )
    else:
        assert resized == {f"layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in range(4)}
        table = "layers.2.blocks.0.attn.relative_position_bias_table"
        small, large = base.get_parameter(table).view(13, 13, 4), student.get_parameter(table).view(23, 23, 4)
        torch.testing.assert_close(large[11, 11], small[6, 6], rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        assert student(images(384, count=1)).isfinite().all()


@pytest.mark.parametrize(
    ("theirs", "own", "named"),
    [
        ({}, {"mlp_transform": False}, "has not, or has in another form (layers.0.blocks.0.mlp_transform."),
        ({}, {"attn_transform": False}, "has not, or has in another form (layers.0.blocks.0.attn.pre_softmax."),
        ({}, {"equation_mlp": True}, "has not, or has in another form (layers.0.blocks.0.mlp_transform.norm."),
        ({"equation_mlp": True}, {}, "another form than the student (layers.0.blocks.0.mlp_transform.norm."),
    ],
    ids=["no convolution", "no maps across heads", "equation 8 from the reference", "the reference from equation 8"],
)
def test_other_transformations_are_refused(theirs: dict[str, bool], own: dict[str, bool], named: str) -> None:
    weights, student = (make("mini_swin_t", seed=0, **SWIN, **options) for options in (theirs, own))
    with pytest.raises(ValueError, match=re.escape(named)):
        transfer(weights.state_dict(), student)


@pytest.mark.parametrize("shares", [False, True], ids=["from a DeiT", "from a Mini-DeiT"])
def test_transformations_after_a_cut_stay_random(shares: bool) -> None:
    base = make("mini_deit_ti", seed=0, plain=True, **{**DEIT, "depth": 2}) if shares else vit(2, seed=0)
    student = make("mini_deit_ti", seed=1, plain=True, **DEIT)
    maps = [f"blocks.{number}.attn.pre_softmax.weight" for number in (1, 3)]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    lines = started(base, student).lines()
    own = student.state_dict()
    assert lines[0].startswith("Cut after block 2") and torch.equal(own[maps[1]], before[maps[1]])
    assert torch.equal(own[maps[0]], base.state_dict()[maps[0]] if shares else torch.eye(2))
    assert any("they start as identities" in line for line in lines) is not shares
