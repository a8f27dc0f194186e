"""Two models on the same images: agreement with a teacher, gains over a baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from eval_cases import MODEL, PLAIN, constant_model
from helpers import write_images
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import multinomial

import cli
from logitstore.accuracy import wilson_interval
from logitstore.cards import Card, Preprocessing, load_model, save_model
from logitstore.device import Compute
from logitstore.errors import DataError, InputError, ModelError
from logitstore.evaluate import EvalConfig, EvalResult, evaluate
from logitstore.evaluate.compare import paired_interval
from logitstore.images import ImageSet, open_images
from logitstore.models import build_model
from logitstore.scoring import eval_logits

ON_CPU = Compute(device=torch.device("cpu"))

DIGITS = tuple(str(digit) for digit in range(10))
OTHER = Preprocessing(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7), crop_pct=0.9)
SUBSET = 90


def digits() -> ImageSet:
    return open_images("digits", split="val", subset=SUBSET)


def varied(path: Path, seed: int, *, size: int = 32, names: tuple[str, ...] = DIGITS, **changes: Any) -> str:
    """A model with random weights whose answers differ from image to image."""
    state = dict(build_model(MODEL, num_classes=len(names), size=size, seed=seed).state_dict())
    state["head.weight"] = state["head.weight"] * 20
    values = {"model": MODEL, "num_classes": len(names), "class_names": names, "size": size, "preprocessing": PLAIN}
    save_model(path, state, Card(**{**values, "model_args": {"img_size": size}, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A student; a teacher of another size with another preprocessing."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "checkpoint": varied(folder / "student.safetensors", 1),
        "teacher": varied(folder / "teacher.safetensors", 4, size=48, preprocessing=OTHER),
        "baseline": varied(folder / "baseline.safetensors", 3, size=48, preprocessing=OTHER),
    }


def measured(**options: Any) -> EvalResult:
    return evaluate(EvalConfig(**({"workers": 1, "device": "cpu", "subset": SUBSET} | options)))


def logits_of(path: str) -> NDArray[np.float64]:
    """What a file says of the digits, by its own card."""
    state, card = load_model(path)
    assert card is not None
    model = build_model(MODEL, num_classes=card.num_classes, size=card.size).eval()
    model.load_state_dict(state)
    found = eval_logits(model, digits(), size=card.size, preprocessing=card.preprocessing, compute=ON_CPU)
    return torch.cat([logits for _, logits in found]).double().numpy()


def mean_kl(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> float:
    logp, logq = log_softmax(teacher, axis=1), log_softmax(student, axis=1)
    return float((np.exp(logp) * (logp - logq)).sum(1).mean())


def test_agreement_with_a_teacher(files: dict[str, str]) -> None:
    result = measured(checkpoint=files["checkpoint"], teacher=files["teacher"], batch_size=32)
    student, teacher = logits_of(files["checkpoint"]), logits_of(files["teacher"])
    found = result.agreement
    assert found is not None
    assert (found.images, found.num_classes, found.size, result.size) == (SUBSET, 10, 48, 32)
    assert found.same_top1 == (student.argmax(1) == teacher.argmax(1)).sum() and 0 < found.same_top1 < SUBSET
    assert found.kl == pytest.approx(mean_kl(teacher, student), rel=1e-5) and found.kl > 0.1
    report = result.to_dict()["agreement"]
    assert report["share"] == found.same_top1 / SUBSET
    assert report["interval"] == list(wilson_interval(found.same_top1, SUBSET))
    assert list(result.lines()) == ["checkpoint", "data", "top-1", "top-5", "teacher", "same top-1", "KL"]
    assert f"{found.kl:.4f} nat" in result.lines()["KL"]


def test_a_model_agrees_with_itself(files: dict[str, str]) -> None:
    found = measured(checkpoint=files["checkpoint"], teacher=files["checkpoint"]).agreement
    assert found is not None and (found.same_top1, found.kl) == (SUBSET, 0.0)


def test_ties_are_agreed_on_like_in_accuracy(tmp_path: Path) -> None:
    """Of equal logits the lower class comes first, so all zeros says class 0."""
    zero, one = (constant_model(tmp_path / f"{winner}.safetensors", winner, DIGITS, 10) for winner in (0, 1))
    state, card = load_model(zero)
    assert card is not None
    save_model(tmp_path / "flat.safetensors", {name: torch.zeros_like(part) for name, part in state.items()}, card)
    flat = str(tmp_path / "flat.safetensors")
    same = [measured(checkpoint=path, teacher=flat).agreement for path in (zero, one)]
    assert [entry.same_top1 if entry else None for entry in same] == [SUBSET, 0]


def test_agreement_needs_no_labels(files: dict[str, str], tmp_path: Path) -> None:
    write_images(tmp_path / "flat", [f"{i}.png" for i in range(5)])
    flat: dict[str, Any] = {"data": str(tmp_path / "flat"), "subset": None}
    result = measured(checkpoint=files["checkpoint"], teacher=files["teacher"], **flat)
    assert result.accuracy is None and result.agreement is not None and result.agreement.images == 5
    assert (result.top1, result.top5, result.top1_interval, result.top5_interval) == (None,) * 4
    json.dumps(result.to_dict())
    with pytest.raises(DataError, match="no labels to measure accuracy"):
        measured(checkpoint=files["checkpoint"], baseline=files["baseline"], **flat)


def turned(path: str, order: list[int], out: Path, names: tuple[str, ...] | None = DIGITS) -> str:
    """The same model with its classes in another order."""
    state, card = load_model(path)
    assert card is not None
    state = {name: tensor[order] if name.startswith("head.") else tensor for name, tensor in state.items()}
    save_model(out, state, replace(card, class_names=None if names is None else tuple(names[i] for i in order)))
    return str(out)


def test_classes_in_another_order_are_compared_by_name(files: dict[str, str], tmp_path: Path) -> None:
    other = turned(files["checkpoint"], [3, 1, 4, 0, 5, 9, 2, 6, 8, 7], tmp_path / "turned.safetensors")
    result = measured(checkpoint=files["checkpoint"], teacher=other, baseline=other)
    assert result.agreement is not None and result.agreement.same_top1 == SUBSET
    assert result.agreement.kl == pytest.approx(0, abs=1e-6)
    assert result.gains is not None and (result.gains.gained, result.gains.lost) == (0, 0)


def test_a_teacher_that_knows_more_is_normalised_over_the_common_classes(files: dict[str, str], tmp_path: Path) -> None:
    names = ("ant", *reversed(DIGITS), "bee")
    larger = varied(tmp_path / "larger.safetensors", 5, names=names)
    found = measured(checkpoint=files["checkpoint"], teacher=larger).agreement
    common = logits_of(larger)[:, 1:11][:, ::-1]
    student = logits_of(files["checkpoint"])
    assert found is not None and found.num_classes == 10
    assert found.kl == pytest.approx(mean_kl(common, student), rel=1e-5)
    assert found.same_top1 == (common.argmax(1) == student.argmax(1)).sum()
    with pytest.raises(InputError, match=r"--checkpoint and --baseline tell .* knows 10 \(0, 1, 2, .* knows 12"):
        measured(checkpoint=files["checkpoint"], baseline=larger)


def test_other_classes_are_refused_before_the_first_image(files: dict[str, str], tmp_path: Path) -> None:
    foreign = varied(tmp_path / "foreign.safetensors", 1, names=("cat", "dog"))
    nameless = constant_model(tmp_path / "nameless.safetensors", 0, None, 12)
    for option in ("teacher", "baseline"):
        with pytest.raises(InputError, match=rf"--{option} .*(2 \(cat, dog\).*10 \(0, 1|10 \(0, 1.*2 \(cat, dog\))"):
            measured(checkpoint=files["checkpoint"], **{option: foreign})
        with pytest.raises(InputError, match="12 without names"):
            measured(checkpoint=files["checkpoint"], **{option: nameless})
        bare = tmp_path / "bare.safetensors"
        bare.write_bytes(Path(foreign).read_bytes())
        with pytest.raises(ModelError, match=r"no card beside .*bare.*give a file that finetune or train wrote"):
            measured(checkpoint=files["checkpoint"], **{option: str(bare)})


def test_gains_over_a_baseline(files: dict[str, str]) -> None:
    result = measured(checkpoint=files["checkpoint"], baseline=files["baseline"])
    label_N = digits().require_labels("here")
    ours, theirs = (logits_of(files[name]).argmax(1) == label_N for name in ("checkpoint", "baseline"))
    found = result.gains
    assert found is not None and found.baseline_correct == theirs.sum()
    assert (found.gained, found.lost) == ((ours & ~theirs).sum(), (theirs & ~ours).sum()) and found.gained * found.lost
    assert found.difference == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    assert found.difference == pytest.approx((result.top1 or 0) - found.baseline_correct / SUBSET, abs=1e-12)
    assert found.interval[0] < found.difference < found.interval[1]
    assert sorted(entry.number for entry in found.classes) == list(range(10))
    for entry in found.classes:
        own = label_N == entry.number
        assert entry.name == str(entry.number)
        counts = (own.sum(), (ours & own).sum(), (theirs & own).sum())
        assert (entry.images, entry.correct, entry.baseline_correct) == counts
    differences = [entry.difference for entry in found.classes]
    assert differences == sorted(differences, reverse=True) and differences[0] > 0 > differences[-1]


def test_the_largest_gains_and_losses_are_shown(tmp_path: Path) -> None:
    seven, three = (constant_model(tmp_path / f"{winner}.safetensors", winner, DIGITS, 10) for winner in (7, 3))
    result = measured(checkpoint=seven, baseline=three, subset=None)
    counts = np.bincount(open_images("digits", split="val").require_labels("here"))
    lines = result.lines()
    assert lines["most gained"] == f"7 +100.0 (0 to {counts[7]} of {counts[7]})"
    assert lines["most lost"] == f"3 -100.0 ({counts[3]} to 0 of {counts[3]})"
    assert f"{counts[7]} images gained, {counts[3]} lost" in lines["difference"]
    report = result.to_dict()["gains"]
    assert [entry["difference"] for entry in report["classes"]] == [1.0, *[0.0] * 8, -1.0]
    assert report["difference"] == pytest.approx((counts[7] - counts[3]) / 360)
    alone = measured(checkpoint=seven, baseline=seven).lines()
    assert alone["most gained"] == alone["most lost"] == "none"


@given(gained=st.integers(0, 60), lost=st.integers(0, 60), others=st.integers(0, 200))
def test_the_paired_interval_is_that_of_the_mean_difference(gained: int, lost: int, others: int) -> None:
    images = max(1, gained + lost + others)
    low, high = paired_interval(gained, lost, images)
    # Each image is a difference of +1, -1 or 0; half an image more in each of the four cells of the table.
    differences, weights = np.array([1, -1, 0]), np.array([gained + 0.5, lost + 0.5, images - gained - lost + 1])
    mean = np.average(differences, weights=weights)
    error = np.sqrt(np.average((differences - mean) ** 2, weights=weights) / weights.sum())
    assert (low, high) == pytest.approx((max(-1, mean - 1.959964 * error), min(1, mean + 1.959964 * error)), abs=1e-6)
    assert low <= (gained - lost) / images <= high and low < high
    assert paired_interval(lost, gained, images) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("gain", "loss"), [(0.2, 0.1), (0.05, 0.05), (0.3, 0.02)])
def test_the_paired_interval_keeps_its_level(gain: float, loss: float) -> None:
    """Exact probability, over all outcomes with 40 images, that the interval holds the true difference."""
    images, covered = 40, 0.0
    for gained in range(images + 1):
        for lost in range(images + 1 - gained):
            low, high = paired_interval(gained, lost, images)
            if low <= gain - loss <= high:
                rest = images - gained - lost
                covered += multinomial.pmf([gained, lost, rest], images, [gain, loss, 1 - gain - loss])
    assert 0.93 < covered < 0.99


def test_the_command(files: dict[str, str]) -> None:
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    arguments = ["eval", *options, "--subset", "30", "--workers", "1", "--device", "cpu"]
    found = CliRunner().invoke(cli.main, [*arguments, "--json"])
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert (report["num_samples"], report["agreement"]["images"], report["gains"]["images"]) == (30, 30, 30)
    text = CliRunner().invoke(cli.main, arguments).stdout
    assert "same top-1" in text and "most gained" in text and f"{report['top1_count']} of 30" in text
