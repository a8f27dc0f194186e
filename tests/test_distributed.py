"""Several processes train one model: the same batches and losses as one process, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rank_cases import Ended, RankServer, rank_server
from train_cases import make_store, metrics

STEPS = 12
COMMON = (
    "train", "--epochs", 2, "--batch-size", 32, "--workers", 1, "--no-tensorboard", "--log-steps", 1,
    "--dtype", "float32", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RankServer]:
    with rank_server() as started:
        yield started


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


def losses(out: Path) -> list[float]:
    """Of the steps, in order."""
    found = [float(str(line["loss"])) for line in metrics(out) if line["group"] == "train"]
    assert len(found) == STEPS
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
