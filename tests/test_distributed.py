"""Several processes train one model: the same batches and losses as one process, whatever their number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rank_cases import Ended, RankServer
from torch import nn
from train_cases import STUDENT, SUBSET, make_store, metrics

from logitstore.device import default_workers, resolve_device
from logitstore.distributed import Ranks
from logitstore.errors import InputError
from logitstore.launch import Launch
from logitstore.models import build_model

STEPS = 12
SHARED = 4  # pieces of a batch, over processes
COMMON = (
    "train", "--epochs", 2, "--batch-size", 32, "--workers", 1, "--no-tensorboard", "--log-steps", 1,
    "--dtype", "float32", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("ranks") / "store")


@pytest.fixture(scope="module")
def plain(server: RankServer, store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Ended]]:
    """The same run by 1, 2 and 4 processes: its folder, and what they left."""
    folder = tmp_path_factory.mktemp("plain")
    runs = {}
    for world in (1, 2, 4):
        out = folder / str(world)
        arguments = (*COMMON, "--student", "test_vit", "--store", store, "--drop-path", 0, "--out", out, "--json")
        runs[world] = out, server.run(world, arguments, folder / f"log{world}")
        assert runs[world][1].codes == [0] * world, runs[world][1].text("err")
    return runs


def losses(out: Path, steps: int = STEPS) -> list[float]:
    """Of the steps, in order."""
    found = [float(str(line["loss"])) for line in metrics(out) if line["group"] == "train"]
    assert len(found) == steps
    return found


def test_global_batches_are_the_same_whatever_the_number_of_processes(plain: dict[int, tuple[Path, Ended]]) -> None:
    alone = plain[1][1].fed()
    assert [step["step"] for step in alone] == [*range(1, STEPS + 1)]
    assert [step["position"] for step in alone[:6]] == [[*range(32 * s, 32 * s + 32)] for s in range(6)]
    for world in (2, 4):
        assert plain[world][1].fed() == alone


def test_losses_and_accuracy_are_those_of_one_process(plain: dict[int, tuple[Path, Ended]]) -> None:
    for world in (2, 4):
        assert losses(plain[world][0]) == pytest.approx(losses(plain[1][0]), abs=1e-4)
        ours, theirs = (
            [line for line in metrics(plain[number][0]) if line["group"] == "epoch"] for number in (world, 1)
        )
        assert [line["train_loss"] for line in ours] == pytest.approx([line["train_loss"] for line in theirs], abs=1e-4)
        assert [line["top1"] for line in ours] == pytest.approx([line["top1"] for line in theirs], abs=0.01)


def test_the_main_process_alone_writes_and_speaks(plain: dict[int, tuple[Path, Ended]]) -> None:
    alone = sorted(path.name for path in plain[1][0].iterdir())
    for world in (2, 4):
        out, ended = plain[world]
        assert sorted(path.name for path in out.iterdir()) == alone
        assert len(ended.text("out").splitlines()) == 1 == len(ended.text("out", 0).splitlines())
        assert f"{world} processes share each batch of 32." in ended.text("err", 0)
        assert all("epoch" not in ended.text("err", rank) for rank in range(1, world))


def test_pieces_of_a_batch_are_the_same_in_one_process_and_in_many(
    server: RankServer, store: Path, tmp_path: Path
) -> None:
    """With all that a step may have: stochastic depth, a loss that is no sum over rows, rows without weight, which one
    process has more of than the other, clipping and an average of the weights."""
    (tmp_path / "excluded").write_text("".join(f"{sample}\n" for sample in range(0, SUBSET, 3)))
    arguments = (
        *COMMON, "--student", "test_vit", "--store", store, "--drop-path", 0.3, "--joint", "harmonic",
        "--exclude", tmp_path / "excluded", "--clip-grad", 0.5, "--ema-decay", 0.9,
    )  # fmt: skip
    found = {}
    for world in (1, 2, 4):
        out = tmp_path / str(world)
        ended = server.run(world, (*arguments, "--accumulate", SHARED // world, "--out", out), tmp_path / "log")
        assert ended.codes == [0] * world, ended.text("err")
        found[world] = losses(out)
    assert found[2] == pytest.approx(found[1], abs=1e-4)
    assert found[4] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("student", ["test_vit", "deit_tiny"])
def test_losses_agree_for_fifty_steps(server: RankServer, store: Path, tmp_path: Path, student: str) -> None:
    found = {}
    for world in (1, 2, 4):
        arguments = (*COMMON, "--student", student, "--store", store, "--drop-path", 0, "--epochs", 9)
        ended = server.run(world, (*arguments, "--out", tmp_path / str(world)), tmp_path / "log")
        assert ended.codes == [0] * world, ended.text("err")
        found[world] = losses(tmp_path / str(world), 54)[:50]
    assert found[2] == pytest.approx(found[1], abs=1e-4)
    assert found[4] == pytest.approx(found[1], abs=1e-4)


def test_a_teacher_is_trained_together_too(server: RankServer, tmp_path: Path) -> None:
    found = []
    for world in (1, 2):
        arguments = (
            "finetune", "--teacher", "test_vit", "--subset", 96, "--epochs", 1, "--batch-size", 32, "--drop-path", 0,
            "--workers", 1, "--no-tensorboard", "--device", "cpu", "--out", tmp_path / str(world),
        )  # fmt: skip
        ended = server.run(world, arguments, tmp_path / "log")
        assert ended.codes == [0] * world, ended.text("err")
        found.append(next(line for line in metrics(tmp_path / str(world)) if line["group"] == "epoch")["train_loss"])
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_batchnorm_is_shared_on_gpus_alone() -> None:
    two, cpu, gpu = Ranks(Launch(world=2, local_world=2)), torch.device("cpu"), torch.device("cuda")
    model = build_model(STUDENT, num_classes=10, size=32, drop_path=0.0, seed=0)
    state, parameters = model.state_dict(), list(model.parameters())
    assert any(is_plain_batchnorm(module) for module in model.modules())
    assert two.synchronised(model, cpu) is model and Ranks().synchronised(model, gpu) is model
    assert any(is_plain_batchnorm(module) for module in model.modules())
    shared = two.synchronised(model, gpu)
    assert not any(is_plain_batchnorm(module) for module in shared.modules())
    assert shared.state_dict().keys() == state.keys()
    assert all(one is other for one, other in zip(shared.parameters(), parameters, strict=True))


def is_plain_batchnorm(module: nn.Module) -> bool:
    normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return normalises and not isinstance(module, nn.SyncBatchNorm)


def test_processes_share_the_cores_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logitstore.device.usable_cores", lambda: 16)
    assert default_workers(torch.device("cpu")) == 8 and default_workers(torch.device("cuda")) == 16
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert default_workers(torch.device("cpu")) == 2 and default_workers(torch.device("cuda")) == 4


@pytest.mark.parametrize(
    ("name", "gpus", "sentence"),
    [
        ("cuda:1", 4, "is one GPU for 4 processes: give --device cuda"),
        ("cuda", 2, "4 processes .* but 2 GPUs"),
        ("cuda", 1, "4 processes .* but 1 GPUs"),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, sentence: str
) -> None:
    for variable, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("TORCHELASTIC_RUN_ID", "x")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(InputError, match=sentence):
        resolve_device(name)
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_process_that_sees_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for variable, value in (("RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)  # whether it works is asked of it
    assert resolve_device("cuda") == torch.device("cuda", 0)
