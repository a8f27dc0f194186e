"""Weights of the reference's Mini-Swin and Mini-DeiT: loaded under our names they compute what its layout says."""

from __future__ import annotations

import minivit_twin as twin
import pytest
import timm
import torch
from student_cases import images
from torch import Tensor

import students
from logitstore.errors import ModelError
from logitstore.models import restore_made
from students.minivit.vit import bucket
from students.transfer import by_timm_names, transfer

HEADS = (1, 2, 3, 2)
SWIN = {"embed_dim": 24, "num_heads": HEADS, "num_classes": 5}
SHARING = {
    "all of a stage": (0, ((2,), (2,), (6,), (2,))),
    "every two": (2, ((2,), (2,), (2, 2, 2), (2,))),
    "every three, which swaps the shift": (3, ((2,), (2,), (3, 3), (2,))),
}


def with_weights(name: str, state: dict[str, Tensor], **options: object) -> torch.nn.Module:
    assert name in students.SHORT_NAMES
    model: torch.nn.Module = timm.create_model(name, **options).double().eval()
    model.load_state_dict(by_timm_names(state), strict=True)
    return model


@pytest.mark.parametrize("masked", [True, False], ids=["reference's masks", "Swin's masks"])
@pytest.mark.parametrize(("share", "repeats"), SHARING.values(), ids=SHARING)
def test_mini_swin_computes_what_the_reference_does(
    share: int, repeats: tuple[tuple[int, ...], ...], masked: bool
) -> None:
    state = twin.swin_weights(width=24, repeats=repeats, heads=HEADS, classes=5)
    model = with_weights("mini_swin_t", state, share=share, reference_mask=masked, **SWIN)
    given = images(count=1).double()
    with torch.no_grad():
        expected = twin.mini_swin(state, given, repeats=repeats, heads=HEADS, masked=masked)
        other = twin.mini_swin(state, given, repeats=repeats, heads=HEADS, masked=not masked)
        torch.testing.assert_close(model(given), expected, rtol=1e-9, atol=1e-9)
    assert (expected - other).abs().max() > 1e-5


@pytest.mark.parametrize(("repeats", "size"), [(2, (224, 224)), (4, (224, 224)), (2, (160, 96))])
def test_mini_deit_computes_what_the_reference_does(repeats: int, size: tuple[int, int]) -> None:
    patches = size[0] * size[1] // 256
    state = twin.deit_weights(width=48, depth=4, repeats=repeats, heads=3, patches=patches, classes=5)
    shape = {"embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 5, "img_size": size}
    model = with_weights("mini_deit_ti", state, share=repeats, **shape)
    given = images(count=1)[:, :, : size[0], : size[1]].double()
    with torch.no_grad():
        expected = twin.mini_deit(state, given, depth=4, repeats=repeats, heads=3)
        torch.testing.assert_close(model(given), expected, rtol=1e-9, atol=1e-9)


def test_far_offsets_share_a_bucket() -> None:
    assert [bucket(offset) for offset in range(14)] == list(twin.BUCKET)
    assert [bucket(-offset) for offset in range(14)] == [-kept for kept in twin.BUCKET]


def test_dynamic_sizes_mask_as_the_reference_does() -> None:
    repeats = SHARING["every two"][1]
    state = twin.swin_weights(width=24, repeats=repeats, heads=HEADS, classes=5)
    options = {"share": 2, "reference_mask": True, **SWIN}
    fixed = with_weights("mini_swin_t", state, **options)
    dynamic = with_weights("mini_swin_t", state, strict_img_size=False, **options)
    given = images(count=1).double()
    with torch.no_grad():
        assert torch.equal(fixed(given), dynamic(given))


def test_a_file_of_the_reference_tells_sharing_and_masks() -> None:
    repeats = SHARING["every three, which swaps the shift"][1]
    state = twin.swin_weights(width=96, repeats=repeats, heads=(3, 6, 12, 24), classes=5)
    model, made_with = restore_made("mini_swin_t", state, size=224)
    assert made_with == {"img_size": 224, "share": 3, "reference_mask": True}
    assert model.num_classes == 5 and model.get_submodule("layers.2.blocks.0").reference_mask
    deit = twin.deit_weights(width=192, depth=12, repeats=4, heads=3, patches=196, classes=5)
    assert restore_made("mini_deit_ti", deit, size=224)[1] == {"img_size": 224, "share": 4}
    with pytest.raises(ModelError, match="are not of swin_tiny_patch4_window7_224"):
        restore_made("swin_t", state, size=224)


def test_other_masks_than_the_file_s_are_told() -> None:
    repeats = SHARING["every two"][1]
    state = twin.swin_weights(width=24, repeats=repeats, heads=HEADS, classes=5)
    for masked in (False, True):
        student = timm.create_model("mini_swin_t", share=2, reference_mask=masked, **SWIN)
        told = [line for line in transfer(state, student)[1].lines() if "reference_mask=true" in line]
        assert len(told) == (0 if masked else 1)
