"""Class correlation: the numbers against numpy, the choice of images, the picture, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import write_images
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import cli
import logitstore.report.pearson
from logitstore.cards import Card, Preprocessing, save_model
from logitstore.device import Compute
from logitstore.errors import DataError, InputError, ModelError
from logitstore.images import open_images
from logitstore.models import build_model
from logitstore.report.correlation import CorrelationConfig, correlate
from logitstore.report.heatmaps import draw_maps
from logitstore.report.pearson import ClassCorrelation, averaged_down, off_diagonal_mean
from logitstore.scoring import eval_logits

CPU = torch.device("cpu")
PLAIN = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop_pct=1.0)
DIGITS = tuple(str(digit) for digit in range(10))


def gather(logits_NC: NDArray[np.floating[Any]], batch: int = 7) -> ClassCorrelation:
    found = ClassCorrelation(logits_NC.shape[1], CPU)
    for start in range(0, len(logits_NC), batch):
        found.add(torch.from_numpy(logits_NC[start : start + batch]))
    return found


@given(seed=st.integers(0, 1000), batch=st.integers(1, 50), offset=st.sampled_from([0.0, -30.0, 1e4]))
def test_the_matrix_is_numpys(seed: int, batch: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(40, 1))
    logits_NC = (offset + shared + rng.normal(size=(40, 9)) * rng.uniform(0.1, 3, 9)).astype(np.float32)
    found = gather(logits_NC, batch).matrix()
    np.testing.assert_allclose(found, np.corrcoef(logits_NC.astype(np.float64), rowvar=False), atol=1e-6)


def test_large_maps_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NC = np.random.default_rng(1).normal(size=(30, 11)).astype(np.float32)
    other_NC = np.random.default_rng(2).normal(size=(30, 11)).astype(np.float32)
    whole, other = gather(logits_NC).matrix(), gather(other_NC).matrix()
    distance = off_diagonal_mean(whole, other)
    monkeypatch.setattr(logitstore.report.pearson, "_BLOCK", 40)  # three rows, and two in the end
    assert np.array_equal(gather(logits_NC).matrix(), whole)
    assert off_diagonal_mean(whole, other) == pytest.approx(distance, abs=1e-12)


def test_related_classes_show_as_blocks() -> None:
    rng = np.random.default_rng(0)
    group_C = np.repeat([0, 1, 2], 5)
    factors_N3 = rng.normal(size=(200, 3))
    logits_NC = (factors_N3[:, group_C] + 0.3 * rng.normal(size=(200, 15))).astype(np.float32)
    found = gather(logits_NC, 64).matrix()
    related = group_C[:, None] == group_C
    assert found[related].min() > 0.8 and np.abs(found[~related]).max() < 0.3


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6], ids=str)
def test_a_class_that_never_changes_is_uncorrelated(value: float) -> None:
    logits_NC = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    logits_NC[:, 2] = value
    gathered = gather(logits_NC, 8)
    found = gathered.matrix()
    assert gathered.constant_classes == 1
    assert found[2].tolist() == found[:, 2].tolist() == [0, 0, 1, 0]
    kept = [0, 1, 3]
    np.testing.assert_allclose(found[np.ix_(kept, kept)], np.corrcoef(logits_NC[:, kept], rowvar=False), atol=1e-6)


def test_one_image_shows_no_correlation() -> None:
    assert np.array_equal(gather(np.ones((1, 3), np.float32)).matrix(), np.eye(3, dtype=np.float32))


def test_distance_leaves_the_diagonal_out() -> None:
    rng = np.random.default_rng(3)
    first, second = (gather(rng.normal(size=(20, 6)).astype(np.float32)).matrix() for _ in range(2))
    off = ~np.eye(6, dtype=bool)
    assert off_diagonal_mean(first, first) == 0
    assert off_diagonal_mean(first, second) == pytest.approx(np.abs(first - second)[off].mean(), rel=1e-6)
    assert off_diagonal_mean(first) == pytest.approx(np.abs(first)[off].mean(), rel=1e-6)
    opposite = np.float32([[1, 1], [1, 1]]), np.float32([[1, -1], [-1, 1]])
    assert off_diagonal_mean(*opposite) == 2


def test_averaging_down_means_blocks() -> None:
    full = np.random.default_rng(0).normal(size=(12, 12)).astype(np.float32)
    blocks = full.astype(np.float64).reshape(4, 3, 4, 3).mean((1, 3))
    np.testing.assert_allclose(averaged_down(full, 4), blocks, atol=1e-6)
    assert averaged_down(full, 12) is full
    uneven = averaged_down(full, 5)  # blocks of 2 or 3 classes
    assert uneven.shape == (5, 5) and uneven[0, 0] == pytest.approx(full[:2, :2].mean(), abs=1e-6)
    assert uneven[4, 0] == pytest.approx(full[9:, :2].mean(), abs=1e-6)


def test_a_selection_is_renumbered() -> None:
    images = open_images("digits", split="val")
    chosen = images.select([7, 2, 2])
    assert images.labels is not None and chosen.labels is not None
    assert chosen.labels.tolist() == images.labels[[7, 2, 2]].tolist() and len(chosen) == 3
    assert np.array_equal(chosen.pixels(0), images.pixels(7)) and chosen.image_name(2) == images.image_name(2)
    assert len({part.fingerprint for part in (images, chosen, images.select([7, 2]), images.subset(3))}) == 4
    with pytest.raises(DataError, match="holds no images"):
        images.select([])


def model_file(path: Path, *, seed: int, model: str = "test_vit", names: tuple[str, ...] = DIGITS) -> Path:
    """A model with random weights, larger than usual so that its logits differ from image to image."""
    state = build_model(model, num_classes=len(names), size=32, seed=seed).state_dict()
    state = {key: tensor * 8 if key == "head.weight" else tensor for key, tensor in state.items()}
    model_args = {"img_size": 32} if model == "test_vit" else {}
    card = Card(
        model=model, model_args=model_args, num_classes=len(names), class_names=names, size=32, preprocessing=PLAIN
    )
    save_model(path, state, card)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "teacher": str(model_file(folder / "teacher.safetensors", seed=1)),
        "student": str(model_file(folder / "student.safetensors", seed=2, model="test_efficientnet")),
        "baseline": str(model_file(folder / "baseline.safetensors", seed=3)),
    }


def config(files: dict[str, str], **changes: Any) -> CorrelationConfig:
    return CorrelationConfig(**({**files, "workers": 1, "device": "cpu"} | changes))


def reference(path: str, model: str, samples: list[int]) -> NDArray[np.float64]:
    """The map of a file on samples of digits, by numpy."""
    from logitstore.cards import load_weights

    restored = build_model(model, num_classes=10, size=32).eval()
    restored.load_state_dict(load_weights(path))
    images = open_images("digits", split="val").select(samples)
    found = eval_logits(restored, images, size=32, preprocessing=PLAIN, compute=Compute(device=CPU))
    parts = [logits for _, logits in found]
    return np.corrcoef(torch.cat(parts).double().numpy(), rowvar=False)


def test_three_models_on_digits(files: dict[str, str], tmp_path: Path) -> None:
    result = correlate(config(files, per_class=3, out=str(tmp_path / "maps.png")))
    labels = open_images("digits", split="val").labels
    assert labels is not None
    samples = sorted(sample for digit in range(10) for sample in np.flatnonzero(labels == digit)[:3].tolist())
    maps = {
        name: reference(path, "test_efficientnet" if name == "student" else "test_vit", samples)
        for name, path in files.items()
    }
    off = ~np.eye(10, dtype=bool)
    assert (result.num_classes, result.num_samples, result.fewer, result.without) == (10, 30, 0, 0)
    assert result.baseline is not None and result.teacher.distance == 0
    for name, report in (("teacher", result.teacher), ("student", result.student), ("baseline", result.baseline)):
        assert report.mean_absolute == pytest.approx(np.abs(maps[name])[off].mean(), abs=1e-5)
        assert report.distance == pytest.approx(np.abs(maps[name] - maps["teacher"])[off].mean(), abs=1e-5)
    assert result.student.distance > 0.01
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.width > 2 * picture.height and np.asarray(picture.convert("L")).std() > 10
    lines = result.lines()
    assert list(lines) == ["data", "classes", "teacher", "student", "baseline", "picture"]
    assert f"distance {result.student.distance:.4f}" in lines["student"]


def test_the_batch_size_does_not_matter(files: dict[str, str]) -> None:
    first, second = (correlate(config(files, batch_size=size, per_class=2)) for size in (1, 64))
    assert first.student.distance == pytest.approx(second.student.distance, abs=1e-5)


def test_classes_in_another_order_are_matched_by_name(files: dict[str, str], tmp_path: Path) -> None:
    from logitstore.cards import load_model

    state, card = load_model(files["teacher"])
    assert card is not None and card.class_names is not None
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    turned = {key: tensor[order] if key.startswith("head.") else tensor for key, tensor in state.items()}
    names = tuple(card.class_names[number] for number in order)
    save_model(tmp_path / "turned.safetensors", turned, replace(card, class_names=names))
    same = correlate(config({"teacher": files["teacher"], "student": str(tmp_path / "turned.safetensors")}))
    assert same.student.distance == pytest.approx(0, abs=1e-6)


def test_missing_and_small_classes_are_counted(files: dict[str, str], tmp_path: Path) -> None:
    write_images(tmp_path, [f"val/{digit}/{i}.png" for digit, n in ((1, 5), (4, 2), (8, 3)) for i in range(n)])
    result = correlate(config(files, data=str(tmp_path), per_class=3))
    assert (result.num_samples, result.fewer, result.without) == (8, 1, 7)


def test_a_model_of_more_classes_is_cut_to_the_students(files: dict[str, str], tmp_path: Path) -> None:
    larger = model_file(tmp_path / "larger.safetensors", seed=5, names=("x", *DIGITS, "y"))
    assert correlate(config(files, teacher=str(larger))).num_classes == 10
    other = model_file(tmp_path / "other.safetensors", seed=5, names=("a", "b", "c"))
    with pytest.raises(InputError, match=r"--baseline and --student .*3 \(a, b, c\).*10 \(0, 1, 2, \.\.\.\)"):
        correlate(config(files, baseline=str(other)))


def test_what_is_refused(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(Path(files["student"]).read_bytes())
    with pytest.raises(ModelError, match=r"no card beside .*bare.*give a file that finetune or train wrote"):
        correlate(config(files, student=str(bare)))
    with pytest.raises(InputError, match=r"must end in \.png, \.pdf or \.svg"):
        correlate(config(files, out=str(tmp_path / "maps.gif")))
    with pytest.raises(InputError, match=r"no folder .*absent"):
        correlate(config(files, out=str(tmp_path / "absent" / "maps.png")))
    with pytest.raises(InputError, match="--per-class must be at least 1, got 0"):
        config(files, per_class=0)
    write_images(tmp_path / "flat", ["1.png", "2.png"])
    with pytest.raises(DataError, match="no labels to choose images of each class"):
        correlate(config(files, data=str(tmp_path / "flat")))
    monkeypatch.setattr("logitstore.report.correlation.MAX_CLASSES", 9)
    with pytest.raises(InputError, match="2 to 9 classes, and these models have 10"):
        correlate(config(files))


def test_memory_is_said_where_it_matters(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    from functools import partial

    from logitstore.progress import Progress

    monkeypatch.setattr("logitstore.report.correlation._SAID_FROM", 1.0)
    out = io.StringIO()
    correlate(config(files, per_class=1), partial(Progress, stream=out))
    assert "The maps of 10 classes take" in out.getvalue()


@pytest.mark.usefixtures("without_matplotlib")
def test_pictures_need_matplotlib(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install 'logitstore\[report\]'"):
        draw_maps({"map": np.eye(3, dtype=np.float32)}, tmp_path / "map.png", title="one")


def test_large_maps_are_drawn_smaller(tmp_path: Path) -> None:
    draw_maps({"map": np.eye(1200, dtype=np.float32)}, tmp_path / "map.png", title="one")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width < 1500


def test_the_command(files: dict[str, str]) -> None:
    options = [word for name in ("teacher", "student") for word in (f"--{name}", files[name])]
    found = CliRunner().invoke(cli.main, ["correlation", *options, "--per-class", "1", "--workers", "1", "--json"])
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert report["num_classes"] == 10 and report["baseline"] is None
    assert report["student"]["distance"] > 0 == report["teacher"]["distance"]
    text = CliRunner().invoke(cli.main, ["correlation", *options, "--per-class", "1", "--workers", "1"]).stdout
    assert f"distance {report['student']['distance']:.4f}" in text
