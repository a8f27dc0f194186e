"""``plan``: what it foretells a dump does; what it recommends; what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from dump_cases import CLASSES, config
from plan_cases import plan_config

import cli
from logitstore import plan as plan_module
from logitstore.cuts import Cut, Dense
from logitstore.dump import dump
from logitstore.errors import InputError, NonFiniteError
from logitstore.inference import InferenceConfig
from logitstore.plan import PlanConfig, PlanResult, plan
from logitstore.plan.result import command
from logitstore.store import open_store


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlanResult]:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "memory").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module.weigh, "_IN_MEMORY", folder / "memory")
        return folder, plan(plan_config(folder, out=str(folder / "plan.png")))


def dump_options(command: str) -> dict[str, Any]:
    """What the command line of ``logitstore dump`` makes of a command."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("logitstore", "dump")
    params = cli.main.commands["dump"].make_context("dump", words).params
    return {key: value for key, value in params.items() if key != "as_json"}


def test_the_commands_make_what_was_foretold(planned: tuple[Path, PlanResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample is all images in epochs 0 to 3 here, and the plan is for a store of four epochs."""
    folder, result = planned
    assert (result.sample_views, result.sample_images, result.stored_epochs) == (1200, 300, 4)
    best, command = result.recommended, result.command
    assert best is not None and best.codec == "packed" and command is not None
    monkeypatch.chdir(folder)
    for line in command.split(" && "):
        done = CliRunner().invoke(cli.main, shlex.split(line)[1:])
        assert done.exit_code == 0, done.stderr
    (standard, packed) = map(open_store, sorted(Path("runs/dump").iterdir()))
    whole = {"topk": CLASSES, "epochs": 4, "values": "f16", "logz": True, "floor": 0.0}
    dense_store = open_store(dump(config(folder, "dense", shard_size=None, **whole)).store)
    divergence, kept = [], []
    for epoch in range(4):
        records = packed.read(epoch, 0, 300)
        divergence.append(Dense.of(dense_store.logits(epoch, 0, 300)).kl(records.index, records.prob, records.tail))
        kept.append(records.kept)
    assert np.mean(divergence) == pytest.approx(best.kl, rel=2e-3)
    assert np.mean(kept) == pytest.approx(best.mean_kept, rel=1e-6)
    plain = next(row for row in result.rows if (row.codec, row.cut) == ("standard", best.cut))
    for store, row in ((packed, best), (standard, plain)):
        assert store.info()["bytes_per_record"] == pytest.approx(row.weight.bytes_per_record(4), rel=0.05)


def test_the_recommendation_is_the_smallest_within_the_target(planned: tuple[Path, PlanResult]) -> None:
    _, result = planned
    good = [row for row in result.rows if row.kl <= result.target_kl]
    assert len(good) < len(result.rows)
    for codecs, found in ((("standard", "packed"), result.recommended), (("standard",), result.recommended_standard)):
        sizes = [row.weight.bytes_per_record(4) for row in good if row.codec in codecs]
        assert found in good and found is not None and found.weight.bytes_per_record(4) == min(sizes)


def test_the_grid_has_what_was_asked_for_and_what_the_target_leads_to(planned: tuple[Path, PlanResult]) -> None:
    _, result = planned
    cuts = {row.cut for row in result.rows}
    asked = {Cut(topk=k, floor=f, values=v) for k in (3, 12) for f in (0.0, 0.05) for v in ("q8", "f16")}
    asked |= {Cut(topk=k, mass=0.8, values=v) for k in (3, 12) for v in ("q8", "f16")}
    asked |= {Cut(topk=k, gain=0.1, values=v) for k in (3, 12) for v in ("q8", "f16")}
    assert asked <= cuts
    found = [row for row in result.rows if row.cut not in asked]
    assert {row.cut.topk for row in found} == {12}  # three classes are never good enough
    assert len(found) == 12 and all(0.7 * result.target_kl < row.kl <= result.target_kl for row in found)
    assert {(row.cut.floor > 0, row.cut.mass < 1, row.cut.gain > 0) for row in found} == {
        (True, False, False), (False, True, False), (False, False, True)
    }  # fmt: skip
    assert result.recommended is not None and result.recommended.cut.gain > 0  # it keeps the fewest classes


def test_nothing_is_left_behind_but_the_picture(planned: tuple[Path, PlanResult]) -> None:
    folder, result = planned
    assert result.picture == str(folder / "plan.png")
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder / "memory").iterdir())


def test_as_json_and_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = plan_config(
        tmp_path, sample=128, topk=(4,), floor=(0.0,), mass=(), gain=(), values=("q8",), codec=("standard",)
    )
    words = ["plan"]
    for field in fields(PlanConfig):
        value = getattr(given, field.name)
        if value not in (field.default, ()):
            for item in value if isinstance(value, tuple) else (value,):
                words += [f"--{field.name.replace('_', '-')}", str(item)]
    done = CliRunner().invoke(cli.main, [*words, "--mass", "1", "--gain", "0", "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["sample_views"] == 128 and report["sample_images"] == 32
    (row,) = report["rows"]
    assert {
        "codec": "standard",
        "topk": 4,
        "floor": 0.0,
        "mass": 1.0,
        "gain": 0.0,
        "values": "q8",
        "front": True,
    }.items() <= row.items()
    assert row["bytes_per_record"] > row["record_bytes"] > 4 and 0 < row["kl_error"] < row["kl"]
    assert report["recommended"] is None and report["command"] is None and report["storings"] == []
    text = CliRunner().invoke(cli.main, words).stdout
    assert "nothing that was tried reaches" in text.lower() and re.search(r"^ +4 +0 +1 +0 +q8 ", text, re.MULTILINE)


def test_text_recommends(planned: tuple[Path, PlanResult]) -> None:
    _, result = planned
    lines = result.lines()
    assert str(lines["recommended"]).startswith("packed, KL 0.0") and " ± " in str(lines["recommended"])
    assert lines["standard"] and lines["packed"] and str(lines["without convert"]).startswith("standard, KL")
    assert [row["epochs"] for row in lines["stores"]] == [1, 2, 3, 4, 6, 12]
    assert {row["measured"] for row in lines["stores"]} == {"-"}  # nobody measured so few epochs
    assert 0 < len(lines["packed"]) < len(result.rows) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"topk": (12, 40)}, "There are 12 classes", id="more classes than there are"),
        pytest.param({"sample": 4000}, "4 views of each of 300 images", id="more views than there are"),
        pytest.param({"topk": (2,)}, "Nothing that was tried reaches KL 0.03: the nearest is", id="out of reach"),
        pytest.param({"sample": 16, "views": 4}, "(95%) is wide: raise --sample", id="few images"),
        pytest.param({"sample": 4, "views": 4}, "One image tells nothing of the interval", id="one image"),
    ],
)
def test_what_to_know_is_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    result = plan(
        plan_config(tmp_path, **{"floor": (0.0,), "mass": (), "gain": (), "values": ("q8",), "sample": 64, **options})
    )
    assert any(message in note for note in result.notes), result.notes


def test_a_teacher_of_one_class_can_be_planned_and_drawn(tmp_path: Path) -> None:
    result = plan(
        plan_config(tmp_path, teacher="plan_cases:certain_teacher", sample=64, out=str(tmp_path / "plan.svg"))
    )
    assert {row.cut.topk for row in result.rows} == {1} and max(row.kl for row in result.rows) < 1e-6
    assert (tmp_path / "plan.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0}, "--sample must be at least 1"),
        ({"views": 0}, "--views"),
        ({"epochs": 0}, "--epochs"),
        ({"topk": (5, 0)}, "--topk must be at least 1, got 0"),
        ({"topk": ()}, "--topk has nothing to try"),
        ({"floor": (1.0,)}, r"--floor is a probability in \[0, 1\)"),
        ({"mass": (0.0,)}, r"--mass is a probability in \(0, 1\]"),
        ({"gain": (-1.0,)}, "--gain"),
        ({"values": ("q3",)}, "--values must be of q8"),
        ({"codec": ("zip",)}, "--codec must be of packed, standard"),
        ({"target_kl": 0.0}, "--target-kl"),
        ({"target_kl": float("nan")}, "--target-kl"),
        ({"batch_size": 48}, "--batch-size must be a power of two"),
        ({"workers": 0}, "--workers"),
    ],
    ids=str,
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_config(tmp_path, **options)


@pytest.mark.parametrize("out", ["plan.bmp", "nowhere/plan.png"])
def test_pictures_that_cannot_be_drawn_are_refused_at_once(tmp_path: Path, out: str) -> None:
    with pytest.raises(InputError, match="picture"):
        plan(plan_config(tmp_path, out=str(tmp_path / out), teacher="no_such_teacher"))


@pytest.mark.usefixtures("without_matplotlib")
def test_pictures_need_matplotlib(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install 'logitstore\[report\]'"):
        plan(plan_config(tmp_path, out=str(tmp_path / "plan.png")))


def test_nan_of_the_teacher(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"NaN or infinite logits for .* of 64 views"):
        plan(plan_config(tmp_path, teacher="dump_cases:broken_teacher", sample=64))


def test_the_command_asks_for_the_same_views(tmp_path: Path, planned: tuple[Path, PlanResult]) -> None:
    given = plan_config(
        tmp_path, subset=99, skip_bad=True, compile=True, dtype="bfloat16", device="cpu", checkpoint="a b"
    )
    row = replace(
        planned[1].rows[0], codec="packed", cut=Cut(topk=7, floor=1.23456789e-4, mass=0.9987, gain=2.3e-3, values="q4")
    )
    first, second = command(given, row, 33, "my data").split(" && ")
    made = dump_options(first)
    assert all(made[field.name] == getattr(given, field.name) for field in fields(InferenceConfig))
    wanted = {"epochs": 33, "store": None, **vars(row.cut)}
    assert wanted.items() <= made.items()
    assert shlex.split(second)[:2] == ["logitstore", "convert"] and second.count("my_data") == 2
    assert command(given, replace(row, codec="standard"), 33, "my data") == first


def test_options_of_views_are_those_of_dump() -> None:
    """The same names, types and defaults, so that what was planned is what is dumped."""
    ours, theirs = ({item.name: item for item in cli.main.commands[name].params} for name in ("plan", "dump"))
    for field in fields(InferenceConfig):
        one, other = ours[field.name], theirs[field.name]
        assert isinstance(one, click.Option) and isinstance(other, click.Option)
        assert (one.type.name, one.default, one.is_flag) == (other.type.name, other.default, other.is_flag), field.name
