"""Training and verifying with a packed store: as with the standard one, and in the middle of a run."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from train_cases import Spy, config, make_store, metrics, same_weights

from logitstore.recheck import VerifyConfig, verify
from logitstore.store import open_store
from logitstore.train import train
from logitstore.train.feed import open_feed
from tests.convert_cases import converted


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stores")
    standard = make_store(folder / "standard")
    converted(standard, folder / "packed", base_epochs=1)
    return standard, folder / "packed"


def test_a_run_may_go_on_with_the_packed_store(stores: tuple[Path, Path], tmp_path: Path) -> None:
    standard, packed = stores
    whole = train(config(tmp_path / "whole", store=str(standard)))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run", store=str(standard)), Spy({5: lambda: signal.raise_signal(signal.SIGINT)}))
    resumed = train(config(tmp_path / "run", store=str(packed)))
    assert same_weights(resumed.checkpoint, whole.checkpoint)
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("whole", "run")]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_verify_replays_the_views_of_a_packed_store(stores: tuple[Path, Path]) -> None:
    reports = [verify(VerifyConfig(store=str(path), data="digits")) for path in stores]
    assert reports[1].ok and reports[1].views_checked > 0
    assert reports[0].to_dict() == reports[1].to_dict()


def test_the_default_store_is_the_standard_one_of_both_forms(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in stores:
        shutil.copytree(path, tmp_path / "runs/dump" / path.name)
    options = config(tmp_path / "run")
    opened = open_feed(options, options.effective_recipe())
    assert opened.store is not None and opened.store.members[0].path.name == "standard"
    (tmp_path / "runs/dump/standard/commits/0001.00001.json").unlink()
    opened = open_feed(options, options.effective_recipe())
    assert opened.store is not None and opened.store.members[0].path.name == "packed"


def test_messages_name_the_command_that_completes_it(stores: tuple[Path, Path], tmp_path: Path) -> None:
    standard, _ = stores
    converted(standard, tmp_path / "p", base_epochs=1)
    (tmp_path / "p/commits/0001.00001.json").unlink()
    with pytest.raises(Exception, match=r"lacks 1 of 4 shards, number 1 first: run logitstore convert again"):
        train(config(tmp_path / "run", store=str(tmp_path / "p")))
    converted(standard, tmp_path / "p")
    assert open_store(tmp_path / "p").complete
