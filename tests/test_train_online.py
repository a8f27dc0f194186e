"""Runs with a teacher in memory: steps, processes, checkpoints, what is logged, what is refused."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from learner_cases import BATCH, SOFT, gradients, learner, make_batches, weights
from online_cases import beside, mini_swin, vit
from rank_cases import RankServer
from train_cases import SUBSET, Spy, config, make_store, metrics, same_weights

import cli
from logitstore.cards import load_card
from logitstore.errors import InputError, MismatchError
from logitstore.learning.criterion import Criterion, hard_label_loss, soft_target_loss
from logitstore.learning.learner import Learner
from logitstore.train import TrainConfig, TrainResult, train
from students.recipes import digits

TEACHER = "online_cases:patch16_teacher"
LABELS = {"labels": lambda logits, targets: hard_label_loss(logits, targets, smoothing=0.1)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


def online_config(out: Path, store: Path, **options: object) -> TrainConfig:
    values: dict[str, object] = {"student": "test_vit", "store": str(store), "teacher_online": TEACHER, **options}
    return config(out, **values)


@pytest.fixture(scope="module")
def unbroken(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(online_config(tmp_path_factory.mktemp("run") / "run", store))


def online_learner(criterion: Criterion = SOFT, model: Any = None, **options: Any) -> Learner:
    """A learner whose model has a teacher beside it."""
    student = model or vit(16)
    online = beside(student, options.pop("teacher", "vit_teacher"), hidden_weight=0.5)
    recipe = options.pop("recipe", replace(digits(), batch_size=BATCH, clip_grad=None))
    one = learner(recipe=recipe, drop_path=0.0)
    return Learner(
        student, online.added_to(criterion), recipe, preprocessing=one.preprocessing, steps_per_epoch=4, seed=3,
        device=torch.device("cpu"), beside=online, **options,
    )  # fmt: skip


def test_the_losses_are_added_outside_the_joint_loss() -> None:
    joint = Criterion(distillation=soft_target_loss, joint="harmonic", **LABELS)  # type: ignore[arg-type]
    one = online_learner(joint)
    found = one.train_step(make_batches()[0]).numbers()
    d, s = found["loss_distillation"], found["loss_labels"]
    inner = found["loss_attention"] + 0.5 * found["loss_hidden"]
    assert found["loss"] == pytest.approx(14 / (13 / d + 1 / s) + inner, rel=1e-5)


@pytest.mark.parametrize("joint", ["none", "harmonic"])
def test_pieces_give_the_gradient_of_the_whole(joint: str) -> None:
    weight_B = np.ones(BATCH, np.float32)
    weight_B[:6] = 0.0  # pieces of unequal weight, one of none
    batch = replace(make_batches()[0], weight_B=weight_B)
    criterion = SOFT
    if joint != "none":
        criterion = Criterion(distillation=soft_target_loss, joint=joint, **LABELS)  # type: ignore[arg-type]
    losses, found = [], []
    for accumulate in (1, 3, 8):
        one = online_learner(criterion, accumulate=accumulate)
        losses.append(one.train_step(batch).numbers())
        found.append(gradients(one))
    for loss, gradient in zip(losses[1:], found[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for name, value in gradient.items():
            torch.testing.assert_close(value, found[0][name], rtol=1e-3, atol=1e-6)


def test_the_teacher_is_asked_once_for_each_view() -> None:
    """Also where a batch goes through the student twice."""
    joint = Criterion(distillation=soft_target_loss, joint="ratio", **LABELS)  # type: ignore[arg-type]
    one = online_learner(joint, accumulate=4)
    teacher: Any = one._beside.teacher.model  # type: ignore[union-attr]
    asked = []
    teacher.register_forward_hook(lambda _module, inputs, _output: asked.append(len(inputs[0])))
    one.train_step(make_batches()[0])
    assert asked == [BATCH // 4] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_learns_like_float32(dtype: torch.dtype) -> None:
    full, half = online_learner(), online_learner(dtype=dtype)
    for batch in make_batches():
        expected, found = full.train_step(batch).numbers(), half.train_step(batch).numbers()
        assert found == pytest.approx(expected, rel=0.05)
    assert all(torch.isfinite(value).all() for value in weights(half.model).values())


def test_a_student_of_shared_weights_learns_and_its_average_carries_nothing() -> None:
    recipe = replace(digits(), batch_size=BATCH, ema_decay=0.9)
    one = online_learner(model=mini_swin(16), teacher="swin_teacher", recipe=recipe)
    batches = make_batches()
    first = [one.train_step(batch).numbers()["loss_attention"] for batch in batches]
    for _ in range(3):
        last = [one.train_step(batch).numbers()["loss_attention"] for batch in batches]
    assert sum(last) < sum(first)
    assert one.result is not one.model
    for module in [*one.model.modules(), *one.result.modules()]:
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_what_a_run_says_and_leaves_behind(store: Path, unbroken: TrainResult) -> None:
    lines = [line for line in metrics(unbroken.out) if line["group"] == "train"]
    for line in lines:
        total = float(line["loss_distillation"]) + float(line["loss_attention"]) + 0.1 * float(line["loss_hidden"])  # type: ignore[arg-type]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    card = load_card(unbroken.checkpoint)
    assert card is not None
    online = card.training["teacher_online"]
    assert online["name"] == TEACHER and len(online["sha256"]) == 64
    assert online["preprocessing"]["mean"] == [0.2, 0.3, 0.4]
    assert (online["attention_weight"], online["hidden_weight"]) == (1.0, 0.1)
    assert online["match"] == ["5:5", "3:3", "1:1"]
    spy = Spy()
    train(online_config(Path(unbroken.out), store), spy)
    said = "\n".join(spy.said)
    assert f"The teacher {TEACHER} is in memory and looks at every view: 0.1 M parameters, weights from its f" in said
    assert "Layers matched, student:teacher, counted from 0: 5:5, 3:3, 1:1." in said
    assert "The store holds logits of other weights than this teacher's." in said
    assert spy.said[-1].startswith("All 12 steps are done")


def test_the_teacher_of_the_store_is_known(tmp_path: Path) -> None:
    teacher, spy = "online_cases:patch16_teacher_of_digits", Spy()
    own = make_store(tmp_path / "store", teacher=teacher, epochs=1)
    train(online_config(tmp_path / "run", own, teacher_online=teacher, epochs=1), spy)
    assert any("is in memory" in text for text in spy.said)
    assert not any("of other weights than this teacher's" in text for text in spy.said)


def test_a_stopped_run_ends_in_the_same_weights(store: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    spy = Spy({4: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):
        train(online_config(tmp_path / "run", store), spy)
    resumed = train(online_config(tmp_path / "run", store))
    assert same_weights(resumed.checkpoint, unbroken.checkpoint)


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"hidden_weight": 0.2}, "teacher_online.hidden_weight=0.1"),
        ({"match": ("5:5", "3:3")}, "teacher_online.match="),
        ({"teacher_online": "online_cases:other_patch16_teacher"}, "teacher_online.sha256="),
        ({"teacher_online": None}, "teacher_online.attention_weight=1.0"),
    ],
    ids=["weight", "match", "weights", "without"],
)
def test_another_teacher_or_other_losses_are_another_run(
    store: Path, unbroken: TrainResult, changed: dict[str, object], shown: str
) -> None:
    with pytest.raises(MismatchError, match=shown):
        train(online_config(Path(unbroken.out), store, **changed))


def test_a_run_without_one_says_nothing_of_it(store: Path, tmp_path: Path) -> None:
    """Neither its identity, so that runs of before go on, nor its options."""
    train(config(tmp_path / "run", student="test_vit", store=str(store), epochs=1))
    text = (tmp_path / "run" / "run.yaml").read_text()
    assert not any(word in text for word in ("online", "attention_weight", "hidden_weight", "match:"))
    assert not {"loss_attention", "loss_hidden"} & set(metrics(tmp_path / "run")[0])


def test_views_of_another_size(store: Path, tmp_path: Path) -> None:
    options = {"teacher_online": "online_cases:teacher_at_48", "size": 48, "epochs": 1}
    assert train(online_config(tmp_path / "run", store, **options)).steps == 6


def test_processes_share_the_work(server: RankServer, store: Path, tmp_path: Path) -> None:
    """With stochastic depth, a loss that is no sum over rows, rows without weight, more of them in one process."""
    (tmp_path / "excluded").write_text("".join(f"{sample}\n" for sample in range(0, SUBSET, 3)))
    arguments = (
        "train", "--student", "test_vit", "--store", store, "--teacher-online", TEACHER, "--match", "5:5,2:3",
        "--attention-weight", 0.5, "--epochs", 1, "--batch-size", 32, "--workers", 1, "--no-tensorboard", "--log-steps",
        1, "--dtype", "float32", "--device", "cpu", "--drop-path", 0.3, "--joint", "harmonic", "--clip-grad", 0.5,
        "--exclude", tmp_path / "excluded", "--ema-decay", 0.9,
    )  # fmt: skip
    found = []
    for world in (1, 2):
        out = tmp_path / str(world)
        ended = server.run(world, (*arguments, "--accumulate", 2 // world, "--out", out), tmp_path / "log")
        assert ended.codes == [0] * world, ended.text("err")
        found.append([line for line in metrics(out) if line["group"] == "train"])
    for alone, shared in zip(*found, strict=True):
        for name in ("loss", "loss_attention", "loss_hidden"):
            assert shared[name] == pytest.approx(alone[name], abs=1e-4)


class TestCommandLine:
    """What is refused before anything is written, with one sentence and exit code 2."""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--attention-weight", 2), "--attention-weight is about a teacher in memory: name it with --teacher-"),
            (("--hidden-weight", 0), "--hidden-weight is about a teacher in memory"),
            (("--match", "1:1"), "--match is about a teacher in memory"),
            (("--teacher-checkpoint", "x"), "--teacher-checkpoint is about a teacher in memory"),
            (("--teacher-online", TEACHER, "--hard-labels-only"), "opens no store, so --teacher-online has no meaning"),
            (("--teacher-online", TEACHER, "--recipe", "tinyvit_1k_scratch"), "labels alone, so --teacher-online has"),
            (("--teacher-online", TEACHER, "--attention-weight", 0, "--hidden-weight", 0), "are both 0, so a teacher"),
            (("--teacher-online", TEACHER, "--hidden-weight", -1), "--hidden-weight must be at least 0, got -1"),
            (("--teacher-online", TEACHER, "--match", "1-1"), "--match takes pairs of layers, student:teacher, as 1"),
            (("--teacher-online", "online_cases:convolutional_teacher"), "has no attention layers"),
            (("--teacher-online", "resnet18"), "resnet18 has no attention layers"),  # nor weights, which it is not told
            (("--teacher-online", TEACHER, "--student", "test_efficientnet"), "test_efficientnet has no attention lay"),
            (("--teacher-online", "swin_q"), "There is no model called swin_q"),
        ],
    )  # fmt: skip
    def test_refusals(self, store: Path, tmp_path: Path, arguments: tuple[object, ...], sentence: str) -> None:
        stored = () if {"--hard-labels-only", "--recipe"} & {*arguments} else ("--store", store)
        result = command("--student", "test_vit", *stored, *arguments, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert sentence in result.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()

    def test_a_run_file_repeats_it_and_names_no_code(self, unbroken: TrainResult, tmp_path: Path) -> None:
        file = Path(unbroken.out) / "run.yaml"
        options = yaml.safe_load(file.read_text())["options"]
        assert (options["teacher_online"], options["attention_weight"]) == (TEACHER, 1.0)
        result = command("--config", file, "--out", tmp_path / "again")
        assert result.exit_code == 2 and f"name it yourself: --teacher-online {TEACHER}" in result.stderr
        again = TrainConfig.from_yaml(file, teacher_online=TEACHER, out=str(tmp_path / "again"))
        assert same_weights(train(again).checkpoint, unbroken.checkpoint)

    def test_labels_alone_leave_it_out_of_a_run_file(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text(
            "teacher_online: swin_t\nteacher_checkpoint: weights.safetensors\nmatch: ['1:1']\nattention_weight: 0.5\n"
            "hidden_weight: 0.5\n"
        )
        assert TrainConfig.from_yaml(file).online is not None
        assert TrainConfig.from_yaml(file, hard_labels_only=True).online is None

    def test_another_teacher_takes_no_weights_of_the_files(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text("teacher_online: swin_t\nteacher_checkpoint: weights.safetensors\nmatch: ['1:1']\n")
        assert TrainConfig.from_yaml(file).teacher_checkpoint == "weights.safetensors"
        other = TrainConfig.from_yaml(file, teacher_online="swin_s")
        assert other.teacher_checkpoint is None and other.match == ("1:1",)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


def test_weights_of_a_finetune_run_are_found(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no weights of test_vit for digits.*\(train: --teacher-checkpoint\)"):
        train(online_config(tmp_path / "run", store, teacher_online="test_vit"))
    first = train(config(tmp_path / "teacher", student="test_vit", store=str(store), epochs=1))
    spy = Spy()
    options = {"teacher_online": "test_vit", "teacher_checkpoint": first.out, "epochs": 1}
    result = train(online_config(tmp_path / "run", store, **options), spy)
    assert result.steps == 6
    assert any(f"weights from {first.checkpoint}" in text for text in spy.said)
