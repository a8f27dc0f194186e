"""Names of models, their sizes, and what they are made for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import students
from logitstore.teacher import load_teacher
from students.tinyvit import fitted_windows, from_reference, is_reference_checkpoint
from students.transfer import transfer


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "parameters"),
    [
        ("tinyvit_5m", 1000, 224, 5_392_764),
        ("tinyvit_11m", 1000, 224, 10_996_972),
        ("tinyvit_21m", 1000, 224, 21_198_568),
        ("tinyvit_21m_384", 1000, 384, 21_230_488),
        ("tinyvit_21m_512", 1000, 512, 21_268_120),
        ("swin_n", 100, 224, 20_490_286),
        ("swin_m", 100, 224, 24_043_270),
        ("swin_t", 100, 224, 27_596_254),
    ],
)
def test_parameter_counts(name: str, num_classes: int, size: int, parameters: int) -> None:
    with torch.device("meta"):
        counted = students.create_student(name, num_classes=num_classes, size=size)
    assert sum(parameter.numel() for parameter in counted.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("swin_t", "swin_tiny_patch4_window7_224"),
        ("swin_s", "swin_small_patch4_window7_224"),
        ("swin_b", "swin_base_patch4_window7_224"),
        ("swin_l", "swin_large_patch4_window7_224"),
        ("swin_n", "swin_n"),
        ("tinyvit_11m", "tiny_vit_11m_224"),
        ("tinyvit_21m_512", "tiny_vit_21m_512"),
        ("deit_ti", "deit_tiny_patch16_224"),
        ("deit_small", "deit_small_patch16_224"),
        ("deit_b", "deit_base_patch16_224"),
        ("SWIN_T", "swin_tiny_patch4_window7_224"),
        ("swin_t.ms_in22k", "swin_tiny_patch4_window7_224.ms_in22k"),
        ("resnet18", "resnet18"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"),
    ],
)
def test_names_resolve_to_timms(name: str, full: str) -> None:
    assert students.resolve(name) == full


@pytest.mark.parametrize("name", sorted(students.SHORT_NAMES))
def test_every_short_name_is_a_model(name: str) -> None:
    assert timm.is_model(students.resolve(name))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("swin_tt", "swin_t"),
        ("tinyvit_22m", "tinyvit_21m"),
        ("swin_t.in1k", "ms_in1k, ms_in22k, ms_in22k_ft_in1k"),
        ("swin_n.ms_in1k", "it has none"),
        ("", "no model"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(students.UnknownModelError, match=hint):
        students.resolve(name)


def test_swin_n_and_m_are_registered_with_timm() -> None:
    assert timm.list_models("swin_[nm]") == ["swin_m", "swin_n"]
    model = timm.create_model("swin_n", num_classes=3, img_size=32)
    assert [len(stage.blocks) for stage in model.layers] == [2, 2, 2, 2]
    assert model.pretrained_cfg["classifier"] == "head.fc"
    features = timm.create_model("swin_m", features_only=True, img_size=32)(torch.zeros(1, 3, 32, 32))
    assert [tuple(feature.shape[1:3]) for feature in features] == [(8, 8), (4, 4), (2, 2), (1, 1)]


@pytest.mark.parametrize("name", ["swin_n", "tinyvit_5m", "deit_ti", "resnet18", "test_vit"])
@pytest.mark.parametrize("size", [32, 48])
def test_small_images_pass_through(name: str, size: int) -> None:
    model = students.create_student(name, num_classes=10, size=size).eval()
    with torch.no_grad():
        logits = model(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, 10)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("model", "size", "windows"),
    [
        ("tiny_vit_5m_224", 32, (7, 4, 2, 1)),
        ("tiny_vit_21m_224", 96, (7, 7, 6, 3)),
        ("tiny_vit_21m_224.in1k", 192, (7, 7, 12, 6)),
        ("tiny_vit_21m_384", 256, (12, 12, 16, 8)),
        ("tiny_vit_5m_224", 224, None),
        ("tiny_vit_5m_224", 256, None),
        ("tiny_vit_21m_384", 384, None),
        ("swin_n", 32, None),
    ],
)
def test_windows_of_tinyvit_never_exceed_the_map(model: str, size: int, windows: tuple[int, ...] | None) -> None:
    assert fitted_windows(model, size) == windows


def test_fitted_windows_change_nothing_but_the_padding() -> None:
    """With biases that cannot tell positions apart and one token, a window of 1 and a padded one see the same token."""
    small = students.create_student("tinyvit_5m", num_classes=4, size=32)
    kept = {name: value.shape for name, value in small.state_dict().items() if "attention_biases" not in name}
    plain = timm.create_model("tiny_vit_5m_224", num_classes=4).state_dict()
    assert kept == {name: value.shape for name, value in plain.items() if "attention_biases" not in name}


def rates(model: torch.nn.Module) -> set[float]:
    return {module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"}


def test_drop_path_is_what_was_asked_for() -> None:
    none = students.create_student("swin_n", num_classes=2, size=32)
    some = students.create_student("swin_n", num_classes=2, size=32, drop_path=0.3)
    assert rates(none) <= {0.0}  # timm's own default is 0.1
    assert max(rates(some)) == pytest.approx(0.3)


def test_models_without_stochastic_depth() -> None:
    assert students.create_student("vgg11", num_classes=2, size=32) is not None
    with pytest.raises(ValueError, match="no stochastic depth"):
        students.create_student("vgg11", num_classes=2, size=32, drop_path=0.1)


def reference_names() -> set[str]:
    """Names of the tensors of a 5M model in the reference implementation: depths 2, 2, 6, 2; no indices."""

    def normed(prefix: str) -> list[str]:
        ends = ("c.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked")
        return [f"{prefix}.{end}" for end in ends]

    def affine(prefix: str) -> list[str]:
        return [f"{prefix}.weight", f"{prefix}.bias"]

    names = normed("patch_embed.seq.0") + normed("patch_embed.seq.2") + affine("norm_head") + affine("head")
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in (f"layers.{stage}.blocks.{number}" for number in range(depth)):
            if stage == 0:
                names += [name for conv in (1, 2, 3) for name in normed(f"{block}.conv{conv}")]
                continue
            names += [*normed(f"{block}.local_conv"), f"{block}.attn.attention_biases"]
            for layer in ("attn.norm", "attn.qkv", "attn.proj", "mlp.norm", "mlp.fc1", "mlp.fc2"):
                names += affine(f"{block}.{layer}")
        if stage < 3:
            names += [name for conv in (1, 2, 3) for name in normed(f"layers.{stage}.downsample.conv{conv}")]
    return set(names)


def test_names_of_the_reference_become_timms() -> None:
    state = {name: torch.zeros(0) for name in reference_names()}
    assert is_reference_checkpoint(state)
    extra = {"layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(0)}
    with torch.device("meta"):
        wanted = timm.create_model("tiny_vit_5m_224").state_dict()
    assert set(from_reference(state | extra)) == set(wanted)
    assert not is_reference_checkpoint(wanted)


def as_published(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors as a checkpoint of the reference holds them: its names, downsampling, indices."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^stages\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        name = re.sub(r"^stages\.", "layers.", name)
        name = re.sub(r"^patch_embed\.conv([12])", lambda match: f"patch_embed.seq.{2 * int(match[1]) - 2}", name)
        name = name.replace(".conv.", ".c.").replace("head.norm.", "norm_head.").replace("head.fc.", "head.")
        state[name] = tensor
    buffers = {name: buffer for name, buffer in model.named_buffers() if name.endswith("attention_bias_idxs")}
    return state | {name.replace("stages.", "layers."): buffer for name, buffer in buffers.items()}


@pytest.fixture(scope="module")
def published() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A TinyViT-5M with noise on all it has, and its weights in the layout of the reference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("tiny_vit_5m_224", num_classes=7)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor), alpha=0.1)
    return model.eval(), as_published(model)


def test_the_synthetic_checkpoint_is_laid_out_as_the_reference(
    published: tuple[torch.nn.Module, dict[str, torch.Tensor]],
) -> None:
    _, state = published
    indices = {name for name in state if name.endswith("attention_bias_idxs")}
    assert set(state) - indices == reference_names()
    assert len(indices) == 10 and state["layers.2.blocks.5.attn.attention_bias_idxs"].shape == (196, 196)
    assert state["layers.0.downsample.conv1.c.weight"].shape == (128, 64, 1, 1)  # a stage ends with it


def test_a_checkpoint_of_the_reference_is_a_teacher_and_a_start(
    published: tuple[torch.nn.Module, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    model, state = published
    torch.save({"model": state, "epoch": 29}, tmp_path / "tiny_vit_5m.pth")
    teacher = load_teacher("tinyvit_5m", checkpoint=tmp_path / "tiny_vit_5m.pth", size=224, device="cpu")
    views = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), np.uint8)
    wants = teacher.preprocessing
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (wants.mean, wants.std))
    with torch.no_grad():
        wanted = model((torch.from_numpy(views) / 255 - mean) / std)
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(teacher.logits(views), wanted, atol=1e-4, rtol=1e-4)
    student = timm.create_model("tiny_vit_5m_224", num_classes=7).eval()
    student.load_state_dict(transfer(state, student)[0], strict=True)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(student(images), model(images))
    shallow = timm.create_model("tiny_vit_5m_224", num_classes=7, depths=(2, 2, 2, 2))
    assert transfer(state, shallow)[1].cut == 6
