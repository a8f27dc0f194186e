"""Model files: what is written, what is read back, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binomtest

from logitstore.accuracy import Accuracy, wilson_interval
from logitstore.cards import (
    Card,
    Preprocessing,
    card_path,
    load_card,
    load_model,
    load_weights,
    run_folder,
    save_model,
    weights_sha256,
    write_atomically,
)
from logitstore.errors import ModelError

STATE = {
    "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.count": torch.tensor(7),
    "a.half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
}


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    write_atomically(tmp_path / "safe", lambda path: save_file({"a": torch.zeros(1)}, path))
    assert (tmp_path / "safe").stat().st_mode == usual.stat().st_mode


def card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "model": "swin_tiny_patch4_window7_224",
        "model_args": {"img_size": 32},
        "num_classes": 3,
        "class_names": ("zero", "eins", "два"),
        "size": 32,
        "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), crop_pct=1.0),
        "accuracy": Accuracy(images=10, top1=9, top5=10).to_dict(),
        "epochs": 2,
        "data": {"name": "x", "count": 10},
    }
    return Card(**(values | changes))


def test_round_trip(tmp_path: Path) -> None:
    written = save_model(tmp_path / "deep" / "model.safetensors", STATE, card())
    state, read = load_model(tmp_path / "deep")  # the folder means the file in it
    assert read == written
    assert read is not None and read.sha256 == weights_sha256(STATE)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in state.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in STATE.items()
    }
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["model.json", "model.safetensors"]
    plain = json.loads(card_path(tmp_path / "deep" / "model.safetensors").read_text())
    assert plain["class_names"] == ["zero", "eins", "два"]
    assert plain["accuracy"]["top1_share"] == 0.9


@pytest.mark.parametrize(
    "model_args",
    [{"checkpoint_path": "/tmp/evil.pth"}, {"pretrained": True}, {"norm_layer": None}, {"sizes": [[1], ["a"]]}],
)
def test_a_card_gives_the_constructor_numbers_only(model_args: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="only numbers and lists of numbers may stand there"):
        card(model_args=model_args)
    assert card(model_args={"img_size": [32, 32], "window_sizes": (7, 7, 14, 7), "class_token": False}).model_args


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    save_model(tmp_path / "m.safetensors", {"whole": whole, "same": whole, "turned": whole.T}, card())
    state, _ = load_model(tmp_path / "m.safetensors")
    assert torch.equal(state["turned"], whole.T) and torch.equal(state["same"], whole)


def test_a_failed_write_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    before = save_model(path, STATE, card())

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, {"a": torch.zeros(1)}, card())
    assert load_model(path)[1] == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_a_card_of_other_weights_is_noticed(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", STATE, card())
    save_model(tmp_path / "b.safetensors", {"a": torch.zeros(1)}, card())
    (tmp_path / "b.safetensors").replace(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="belongs to other weights"):
        load_model(tmp_path / "a.safetensors")


def test_hash_is_of_content_not_of_order_file_or_layout(tmp_path: Path) -> None:
    shuffled = dict(reversed(STATE.items()))
    turned = {**STATE, "b.weight": STATE["b.weight"].T.contiguous().T}
    torch.save({"state_dict": STATE}, tmp_path / "m.pth")
    hashes = {weights_sha256(state) for state in (STATE, shuffled, turned, load_weights(tmp_path / "m.pth"))}
    assert hashes == {weights_sha256(STATE)}
    changed = [
        {**STATE, "b.weight": STATE["b.weight"].reshape(3, 2)},
        {**STATE, "b.weight": STATE["b.weight"].double()},
        {**STATE, "a.half": torch.tensor([1.5, 0.0], dtype=torch.bfloat16)},
        {name + "x": tensor for name, tensor in STATE.items()},
    ]
    assert len({weights_sha256(state) for state in changed} | hashes) == 5


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_average_comes_first_in_a_trainers_checkpoint(tmp_path: Path, key: str) -> None:
    average = {"module.w": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": {"w": torch.zeros(2)}, key: average}, tmp_path / "last.pth.tar")
    assert load_weights(tmp_path / "last.pth.tar")["w"].tolist() == [1.0, 1.0]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": Evil()}, "evil.pth")
    Path("evil.bin").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.bin"):
        with pytest.raises(ModelError, match=r"cannot be read as weights \(\w+\): give safetensors, or") as caught:
            load_weights(name)
        assert "trusted" not in str(caught.value)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "No file of weights"),
        ("text.safetensors", b"hello", "cannot be read"),
        ("text.pth", b"hello", "cannot be read"),
        ("empty.safetensors", b"", "cannot be read"),
    ],
)
def test_unreadable_weights(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(tmp_path / name)
    assert name in str(caught.value)


def test_checkpoint_without_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="no state dict"):
        load_weights(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        (json.dumps({**card().to_dict(), "version": 9}), "version 9"),
        (json.dumps({**card().to_dict(), "colour": 1}), "unknown fields: colour"),
        (json.dumps({**card().to_dict(), "class_names": ["a"]}), "1 names for 3 classes"),
        (json.dumps({**card().to_dict(), "preprocessing": {"mean": [0, 0]}}), "incomplete"),
    ],
)
def test_unreadable_cards(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        load_card(tmp_path / "m.safetensors")


def test_no_card_or_a_json_file_of_another_kind(tmp_path: Path) -> None:
    assert load_card(tmp_path / "m.safetensors") is None
    (tmp_path / "m.json").write_text('{"architectures": ["x"]}')
    assert load_card(tmp_path / "m.safetensors") is None


@pytest.mark.parametrize(
    "values",
    [
        {"mean": (0.5, 0.5), "std": (1, 1, 1)},
        {"mean": (0, 0, 0), "std": (1, 0, 1)},
        {"mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 0},
    ],
)
def test_preprocessing_is_validated(values: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="Preprocessing needs"):
        Preprocessing(**values)


@given(images=st.integers(1, 10_000), data=st.data())
def test_wilson_interval_holds_the_share(images: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, images))
    low, high = wilson_interval(correct, images)
    assert 0 <= low <= correct / images + 1e-12 and correct / images - 1e-12 <= high <= 1


@pytest.mark.parametrize(("correct", "images"), [(15, 20), (0, 10), (10, 10), (357, 360), (1, 1)])
def test_wilson_interval_is_scipys(correct: int, images: int) -> None:
    interval = binomtest(correct, images).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(correct, images) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_run_folders() -> None:
    assert run_folder("finetune", "swin_t", "digits") == Path("runs/finetune/swin_t-digits")
    assert run_folder("dump", "my.mod:f", "torch/cifar10", "/x") == Path("/x/dump/my.mod_f-torch_cifar10")


def test_accuracy_as_a_sentence() -> None:
    assert str(Accuracy(images=360, top1=357, top5=360)) == (
        "99.2% top-1 (97.6 to 99.7 at 95%), 100.0% top-5, 360 images (val)"
    )
