"""MiniViT's ablations: the paper's rows, the commands that measure them, the report, a small run of it all."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from framework_cases import ROOT, command_line, in_this_process, make_data

from benchmarks import minivit
from benchmarks.framework import session
from benchmarks.framework.launch import Step
from benchmarks.framework.steps import StepFolder
from benchmarks.minivit_parts import report
from benchmarks.minivit_parts.protocol import COMMANDS, MiniVitProtocol, trained
from benchmarks.minivit_parts.rows import FAMILIES, ROWS, TABLES, Row, rows_of
from benchmarks.minivit_parts.setting import MATCHES, MiniVitSetting
from logitstore import speed
from logitstore.errors import InputError, LogitStoreError

SMALL = ("embed_dim=16", "num_heads=1:2:2:4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("pictures"))


def protocol_of(out: Path, **values: Any) -> MiniVitProtocol:
    return MiniVitProtocol.of(MiniVitSetting(out=out, **values))


def row(table: str, title: str) -> Row:
    (found,) = [one for one in ROWS if (one.table, one.title) == (table, title)]
    return found


def student(protocol: MiniVitProtocol, table: str, title: str) -> Step:
    return protocol.steps[trained(row(table, title), 1)]


def test_the_papers_rows_are_all_there() -> None:
    assert {table: [one.paper for one in rows_of((table,))] for table in TABLES} == {
        "swin": [81.2, 79.0, 79.8, 79.2, 81.4],
        "deit": [79.9, 78.3, 80.1, 79.3, 80.7],
        "losses": [79.2, 81.2, 80.9, 81.4, 81.5, 81.4],
    }
    assert [one.architecture.million for one in rows_of(("swin", "deit"))] == [28, 12, 12, 12, 12, 22, 11, 11, 11, 11]
    best = max(rows_of(("losses",)), key=lambda one: one.paper)
    assert best.title == "pred+hddn" and best.loss.hidden == 1 and best.loss.attention == 0


def test_rows_share_a_training_only_where_it_is_the_same() -> None:
    kinds: dict[str, Any] = {}
    for one in ROWS:
        assert kinds.setdefault(one.step, (one.architecture, one.loss)) == (one.architecture, one.loss)
    assert len(kinds) == len(ROWS) - 1 and row("losses", "GT").step == row("swin", "WS+WT").step
    # Table 1 has the paper's gamma of 0.1, Table 3 weights of 1.
    assert row("losses", "pred+attn+hddn").step != row("swin", "WS+WD+WT").step


def test_every_command_is_one_that_its_command_line_takes(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(1, 2), workers=1, device="cpu", dtype="float32", subset=40)
    kinds = []
    for step in protocol.steps.values():
        command = command_line(step).commands[step.words[0]]
        command.make_context(step.words[0], list(step.words[1:]), resilient_parsing=False)
        kinds.append(step.words[0])
    assert kinds.count("dump") == 2 and kinds.count("figures") == 2
    assert kinds.count("train") == 1 + 2 * (len(ROWS) - 1)


def test_nothing_is_needed_before_it_is_made(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(0, 7))
    made: set[str] = set()
    for step in protocol.steps.values():
        options = ("--checkpoint", "--teacher-checkpoint", *(("--store",) if step.words[0] == "train" else ()))
        needed = {Path(word).name for option, word in pairwise(step.words) if option in options}
        assert needed <= set(step.needs) <= made, step.name
        made.add(step.name)
    assert set(protocol.steps["figures-deit"].needs) == made - {"figures-deit"}, "nothing runs beside a measurement"


def test_students_of_a_family_see_the_same_views_and_steps(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, view="tinyvit")
    own = {"--student": 2, "--student-arg": 2, "--store": 2, "--out": 2, "--hard-labels-only": 1, "--view": 2,
           "--joint": 2, "--alpha": 2, "--teacher-online": 2, "--teacher-checkpoint": 2, "--attention-weight": 2,
           "--hidden-weight": 2, "--match": 2}  # fmt: skip
    left: dict[bool, set[tuple[str, ...]]] = {}
    for one in ROWS:
        words = list(protocol.steps[trained(one, 1)].words)
        assert ("--hard-labels-only" in words) == ("--store" not in words)
        for option, count in own.items():
            while option in words:
                del words[words.index(option) : words.index(option) + count]
        left.setdefault(one.architecture.is_deit, set()).add(tuple(words))
    (swin,), (deit,) = left[False], left[True]
    assert [b for a, b in zip(swin, deit, strict=True) if a != b] == ["minivit_deit"]
    dump = protocol.steps["store-seed1"].words
    for option in ("--seed", "--size", "--epochs"):
        assert dump[dump.index(option) + 1] == swin[swin.index(option) + 1]
    assert dump[dump.index("--view") + 1] == "tinyvit"
    assert student(protocol, "swin", "base").words.count("tinyvit") == 1
    assert ("--mixup", "0") in list(pairwise(swin)), "else rows on labels alone would mix images"


def test_no_student_is_the_teacher_over_again(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    teacher, base = protocol.steps["teacher-swin_t"].words, student(protocol, "swin", "base").words
    different = [(a, b) for a, b in zip(teacher, base, strict=True) if a != b and not a.startswith(str(tmp_path))]
    assert different == [("6", "3"), ("0", "1")], "epochs and seed"


def test_a_teacher_is_in_memory_only_where_layers_are_compared(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, size=64)
    weights = {}
    for one in ROWS:
        words = protocol.steps[trained(one, 1)].words
        given = dict(pairwise(words))
        assert ("--teacher-online" in given) == one.loss.is_online
        if one.loss.is_online:
            assert given["--teacher-checkpoint"] == str(tmp_path / "teacher-swin_t") and "--store" in given
            assert given["--match"] == MATCHES["swin_t"]
            weights[one.table, one.title] = (given["--attention-weight"], given["--hidden-weight"])
    assert weights == {
        ("swin", "WS+WD"): ("1", "0.1"),
        ("swin", "WS+WD+WT"): ("1", "0.1"),
        ("losses", "pred+attn"): ("1", "0"),
        ("losses", "pred+hddn"): ("0", "1"),
        ("losses", "pred+attn+hddn"): ("1", "1"),
    }
    both = dict(pairwise(student(protocol, "losses", "GT+pred").words))
    assert (both["--joint"], both["--alpha"]) == ("alpha", "0.5")


def test_only_what_a_row_is_named_by_changes_the_architecture(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, swin_args=SMALL, deit_args=("patch_size=8",))

    def described(title: str, table: str = "swin") -> tuple[str, list[str]]:
        words = student(protocol, table, title).words
        given = [value for option, value in pairwise(words) if option == "--student-arg"]
        return words[words.index("--student") + 1], given

    off = ["attn_transform=false", "mlp_transform=false"]
    assert described("base") == ("swin_t", [*SMALL])
    assert described("WS") == described("WS+WD") == ("mini_swin_t", [*SMALL, *off])
    assert described("WS+WT") == described("WS+WD+WT") == described("pred", "losses") == ("mini_swin_t", [*SMALL])
    assert described("base", "deit") == ("deit_s", ["patch_size=8"])
    assert described("WS", "deit") == ("mini_deit_s", ["patch_size=8", *off])
    teacher = protocol.steps["teacher-swin_t"].words
    assert [value for option, value in pairwise(teacher) if option == "--student-arg"] == [*SMALL]
    figures = protocol.steps["figures-swin"].words
    assert figures[2] == " ".join(("mini_swin_t", *SMALL, *off)) and len(FAMILIES["swin"]) == 3


def test_deeper_teachers_are_matched_as_in_the_reference(data: dict[str, str], tmp_path: Path) -> None:
    steps = protocol_of(tmp_path, **data, teacher_name="swin_b", tables=("losses",)).steps
    assert list(steps)[:2] == ["fetch-swin_b", "teacher-swin_b"] and "figures-deit" not in steps
    words = dict(pairwise(steps["swin-ws-wt-all-seed1"].words))
    assert words["--match"] == "11:23,9:21,7:15,5:9,3:3,1:1" and words["--teacher-online"] == "swin_b"
    assert "--student-arg" not in steps["teacher-swin_b"].words


def test_a_map_of_one_token_is_not_compared(data: dict[str, str], tmp_path: Path) -> None:
    sized = {size: MiniVitSetting(**data, size=size, out=tmp_path).matched for size in (32, 33)}  # type: ignore[arg-type]
    assert sized == {32: "9:9,7:7,5:5,3:3,1:1", 33: MATCHES["swin_t"]}
    named = MiniVitSetting(**data, size=32, match="11:11", out=tmp_path)  # type: ignore[arg-type]
    assert named.matched == "11:11"


@pytest.mark.parametrize(("size", "patch"), [(224, ()), (112, ()), (64, ("patch_size=8",)), (32, ("patch_size=8",))])
def test_small_images_get_smaller_patches(
    data: dict[str, str], tmp_path: Path, size: int, patch: tuple[str, ...]
) -> None:
    setting = MiniVitSetting(**data, size=size, out=tmp_path)  # type: ignore[arg-type]
    assert setting.arguments_of("deit") == patch and setting.arguments_of("swin") == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tables": ("swin", "IX")}, "--rows takes swin, deit, losses; got IX"),
        ({"tables": ()}, "at least one"),
        ({"teacher_name": "regnety_160"}, "--teacher takes swin_t"),
        ({"teacher_checkpoints": (("swin_s", "a"),)}, "--teacher-checkpoint takes swin_t"),
        ({"swin_args": ("embed_dim",)}, "--swin-arg: 'embed_dim' is no argument"),
        ({"match": "11-23"}, "--match takes pairs of layers"),
        ({"epochs": 0}, "--epochs must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LogitStoreError, match=message):
        MiniVitSetting(**values)


def test_a_given_teacher_is_measured_and_not_trained(tmp_path: Path) -> None:
    flags = ["--teacher", "swin_s", "--teacher-checkpoint", "weights.safetensors", "--out", str(tmp_path)]
    setting = minivit.setting_of(minivit.parser().parse_args(flags))
    steps = MiniVitProtocol.of(setting).steps
    assert steps["teacher-swin_s"].words[:3] == ("eval", "--checkpoint", "weights.safetensors")
    assert "weights.safetensors" in steps["swin-ws-distilled-seed1"].words
    with pytest.raises(InputError, match="no file of weights"):
        setting.inputs()


def test_flags_keep_the_settings_defaults() -> None:
    assert minivit.setting_of(minivit.parser().parse_args([])) == MiniVitSetting()
    flags = ["--quick", "--seeds", "0,3", "--rows", "swin", "--deit-arg", "depth=2", "--deit-arg", "num_heads=1"]
    setting = minivit.setting_of(minivit.parser().parse_args(flags))
    assert setting.seeds == (0, 3) and setting.tables == ("swin",) and setting.subset == 64
    assert setting.deit_args == ("depth=2", "num_heads=1") and setting.teacher_epochs == 2


def test_architectures_are_counted_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_LEAST_SECONDS", "_SECONDS_OF_PAIRS"):
        monkeypatch.setattr(speed, name, 0.0)
    protocol = protocol_of(tmp_path, swin_args=SMALL, size=32, device="cpu", tables=("swin",))
    code, output = in_this_process(protocol.steps["figures-swin"], None)  # type: ignore[arg-type]
    result = json.loads(output)
    assert code == 0 and result["measured"]["device"] == "cpu"
    cells = report.architecture_figures(protocol, {"figures-swin": result})
    base, shared, transformed = cells["swin"], cells["swin-ws"], cells["swin-ws-wt"]
    assert shared["M parameters"] < transformed["M parameters"] < 0.6 * base["M parameters"]
    assert shared["GMACs"] == base["GMACs"] <= transformed["GMACs"], "sharing saves no work"
    assert base["speed"] == 1 and 0.2 < transformed["speed"] < 2 and base["img/s"] > 0
    assert protocol.steps["figures-swin"].module == COMMANDS


def test_a_small_run_goes_from_teacher_to_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: dict[str, str]
) -> None:
    for name in ("_LEAST_SECONDS", "_SECONDS_OF_PAIRS"):
        monkeypatch.setattr(speed, name, 0.0)
    protocol = protocol_of(tmp_path, **data, size=32, epochs=1, batch_size=32, teacher_init="random", swin_args=SMALL,
                           tables=("swin",), workers=1, device="cpu")  # fmt: skip
    with StepFolder(tmp_path, in_this_process) as folder:
        results = session.run(protocol, folder, None)
    found = report.summary(protocol, results, 0.0)
    assert found["complete"] and found["steps_done"] == 8 and found["orders"][0]["pairs"] == 10
    assert all(line["test_images"] == 20 for line in found["rows"])
    runs = {title: tmp_path / trained(row("swin", title), 1) / "run.yaml" for title in ("WS+WT", "WS+WD+WT")}
    effective = {title: yaml.safe_load(path.read_text())["effective"] for title, path in runs.items()}
    assert "teacher_online" not in effective["WS+WT"]
    assert effective["WS+WD+WT"]["teacher_online"]["match"] == ["9:9", "7:7", "5:5", "3:3", "1:1"]
    here = {line["what"]: line["here"] for line in found["setting"]}
    assert here["warm-up epochs"] == "0.0667" and here["peak learning rate"] == "3.13e-05"  # 1e-3 at 1,024 images


def run_script(*flags: str) -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, JSON line and everything else of a run of the script."""
    script = str(ROOT / "benchmarks" / "minivit.py")
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    line = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return done.returncode, line, done.stdout + done.stderr


def test_the_script_refuses_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["minivit.py", "--rows", "IX", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        minivit.main()
    assert end.value.code == 2 and capsys.readouterr().err.startswith("minivit: --rows takes swin, deit, losses")


@pytest.mark.slow
def test_pieces_of_a_run_give_what_an_unbroken_run_gives(tmp_path: Path) -> None:
    flags = ("--quick", "--workers", "1", "--rows", "swin,losses")
    code, unbroken, text = run_script(*flags, "--out", str(tmp_path / "unbroken"))
    assert code == 0 and unbroken is not None and "No claim about accuracy comes from digits" in text
    pieces = 0
    while True:
        code, pieced, _ = run_script(*flags, "--out", str(tmp_path / "pieces"), "--time-limit", "25", "--jobs", "2")
        pieces += 1
        if code != session.MORE_TO_DO:
            break
    assert code == 0 and pieces > 2 and pieced is not None
    accuracies = [[line["each seed"] for line in found["rows"]] for found in (unbroken, pieced)]
    assert accuracies[0] == accuracies[1] and pieced["orders"] == unbroken["orders"]
