"""The command line: the same options as the configurations, one sentence per error, exit codes."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
import dump_cases
import pytest
from click.testing import CliRunner, Result

import cli
from logitstore.accuracy import Accuracy
from logitstore.catalogue import ModelsConfig
from logitstore.console import Terminated, show
from logitstore.contract import ContractConfig
from logitstore.convert import ConvertConfig
from logitstore.dump import DumpConfig, dump
from logitstore.evaluate import EvalConfig
from logitstore.export import ExportConfig
from logitstore.finetune import FinetuneConfig
from logitstore.pack import PackConfig
from logitstore.plan import PlanConfig
from logitstore.recheck import VerifyConfig
from logitstore.report.audit import AuditConfig
from logitstore.report.correlation import CorrelationConfig
from logitstore.train import TrainConfig
from students.recipes import RECIPES

CONFIGURATIONS: dict[str, Any] = {
    "pack": PackConfig,
    "finetune": FinetuneConfig,
    "plan": PlanConfig,
    "dump": DumpConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
    "verify": VerifyConfig,
    "correlation": CorrelationConfig,
    "models": ModelsConfig,
    "audit": AuditConfig,
    "convert": ConvertConfig,
    "export": ExportConfig,
    "contract": ContractConfig,
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    return Path(dump(dump_cases.config(folder, epochs=1)).store)


def parameters(name: str) -> dict[str, click.Parameter]:
    return {parameter.name or "": parameter for parameter in cli.main.commands[name].params}


def test_commands_are_complete() -> None:
    assert list(cli.main.commands) == [
        "pack", "finetune", "plan", "dump", "convert", "train", "eval", "audit", "info", "verify", "correlation",
        "models", "contract", "export",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*cli.main.commands, ""])
def test_every_help_has_an_example(name: str) -> None:
    result = run(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"  logitstore {name}".rstrip() in result.stdout


@pytest.mark.parametrize("columns", [80, 110])
def test_the_commands_are_described_in_full(columns: int) -> None:
    text = CliRunner().invoke(cli.main, ["--help"], terminal_width=columns).stdout
    lines = text.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == list(cli.main.commands)
    assert all(len(line) <= columns and (not line or line.endswith(".")) and "..." not in line for line in lines)


@pytest.mark.parametrize("name", cli.main.commands)
def test_every_option_is_explained(name: str) -> None:
    for parameter in parameters(name).values():
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), parameter.name


def test_help_names_every_recipe() -> None:
    recipe = parameters("train")["recipe"]
    assert isinstance(recipe, click.Option) and recipe.help is not None
    assert set(re.findall(r"\w+", recipe.help.partition("  [")[0])) - {"or"} == set(RECIPES)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_options_are_the_fields_of_the_configuration(name: str) -> None:
    """The same names and defaults, so that command line and Python call mean the same."""
    declared = {field.name: field for field in fields(CONFIGURATIONS[name])}
    required = [key for key, field in declared.items() if field.default is MISSING]
    given = [[f"--{key}", "x"] if isinstance(parameters(name)[key], click.Option) else ["x"] for key in required]
    context = cli.main.commands[name].make_context(name, [word for words in given for word in words])
    offered = {key: value for key, value in context.params.items() if key not in ("as_json", "config")}
    assert offered == {key: "x" if key in required else field.default for key, field in declared.items()}


def test_info_json_has_the_promised_keys(store: Path) -> None:
    result = run("info", store, "--json")
    report = json.loads(result.stdout)
    promised = {"num_samples", "num_epochs", "num_classes", "topk", "records", "bytes_per_record", "complete"}
    assert promised <= report.keys()
    assert (report["num_samples"], report["records"], report["complete"]) == (300, 300, True)
    assert "bytes_per_record" in run("info", store).stdout


def test_verify_json_has_the_promised_keys(store: Path) -> None:
    result = run("verify", store, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert {"ok", "records_checked", "views_checked", "errors"} <= report.keys()
    assert (report["ok"], report["records_checked"], report["views_checked"]) == (True, 300, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere"], "There is no store at nowhere"),
        (["verify", "nowhere"], "There is no store at nowhere"),
        (["dump", "--teacher", "swin_t", "--data", "nowhere", "--epochs", "1"], "No data set at nowhere"),
        (["dump", "--teacher", "no_such_model", "--subset", "10"], "no_such_model"),
        (["dump", "--teacher", "swin_t", "--view", "no_such_view"], 'There is no view "no_such_view"'),
        (["dump", "--teacher", "swin_t", "--device", "abacus"], "Device abacus"),
        (["dump", "--teacher", "swin_t", "--data", "images"], "--epochs is required"),
        (["train", "--store", "nowhere"], "There is no store at nowhere"),
        (["train", "--student", "no_such_model", "--hard-labels-only"], "no_such_model"),
        (["eval", "--checkpoint", "nowhere"], "nowhere"),
        (["audit", "nowhere"], "There is no store at nowhere"),
        (["models", "no_such_model"], "no_such_model"),
        (["export", "--checkpoint", "nowhere"], "nowhere"),
        (["export", "--checkpoint", "nowhere", "--format", "pickle"], "Invalid value for '--format'"),
        (["train", "--hard-labels-only", "--exclude", "nowhere"], "nowhere, cannot be read (No such file"),
        (["pack", "out", "--data", "nowhere"], "No data set at nowhere"),
        (["convert", "nowhere", "out"], "There is no store at nowhere"),
        (["convert", "a", "b", "--codec", "standard", "--base-epochs", "2"], "--base-epochs means nothing"),
        (["convert", "nowhere"], "Missing argument 'OUT'"),
        (["contract"], "A contraction needs a bound"),
        (["contract", "--from", "swin_t", "--max-params", "11M"], "swin_t is no TinyViT"),
        (["contract", "--max-params", "eleven"], "'eleven' is no number, as in"),
        (["contract", "--min-throughput", "twice"], "--min-throughput must be images a second, as in 2000"),
        (["contract", "--max-params", "5M", "--store", "nowhere"], "There is no store at nowhere"),
        (["dump"], "Missing option '--teacher'"),
        (["dump", "--teacher", "swin_t", "--topk", "none"], "Invalid value for '--topk'"),
        (["dumb"], "No such command"),
    ],
)
def test_unusable_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir()), "something was written"


def test_errors_go_to_standard_error_also_with_json() -> None:
    result = run("verify", "nowhere", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_interruptions(error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_path: str) -> None:
        raise error

    monkeypatch.setattr("logitstore.store.open_store", interrupted)
    result = run("info", "somewhere")
    assert result.exit_code == code
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileExistsError(errno.EEXIST, "File exists", "runs/x"), "runs/x cannot be used (File exists)"),
        (OSError("no such thing"), "a file or a device cannot be used (no such thing)"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: str) -> None:
        raise error

    monkeypatch.setattr("logitstore.store.open_store", refused)
    result = run("info", "somewhere", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_text_output_abbreviates_long_lists(capsys: pytest.CaptureFixture[str]) -> None:
    show({"names": list(range(1000)), "none": [], "share": 0.125, "ok": True, "absent": None}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("18, 19, … (1000)")
    assert lines[1:] == ["none    none", "share   0.125", "ok      yes", "absent  -"]


def test_text_output_shows_intervals_as_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = Accuracy(images=360, top1=306, top5=352).to_dict()
    show({"accuracy": accuracy, "interval": (0.25, 0.5), "ids": [1, 2]}, as_json=False)
    first, *others = capsys.readouterr().out.splitlines()
    low, high = accuracy["top1_interval"]
    assert f"top1_interval {low:.6g} to {high:.6g}, top5_interval" in first
    assert others == ["interval  0.25 to 0.5", "ids       1, 2"]
    show({"accuracy": accuracy}, as_json=True)
    assert json.loads(capsys.readouterr().out)["accuracy"] == accuracy


def test_text_output_shows_lists_of_objects_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "first", "count": 12345, "share": 0.25}, {"name": "2nd", "count": 7, "share": None}]
    show({"rows": rows, "ok": True}, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "rows:", "  name    count  share", "  first  12,345   0.25", "  2nd         7      -", "ok    yes"
    ]  # fmt: skip


def test_a_reader_that_leaves_is_no_error(store: Path) -> None:
    command = f"{sys.executable} -m logitstore info {store} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=dump_cases.environment(), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (141, "")
