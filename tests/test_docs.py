"""The documents: their code runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from helpers import picture
from train_cases import make_store

import cli
from logitstore.views import Rng

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)")


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (path.name, code) for path in DOCUMENTS for kind, code in BLOCK.findall(path.read_text()) if kind == language
    ]


def commands() -> list[str]:
    lines = [line for _, code in blocks("sh") for line in code.replace("\\\n", " ").splitlines()]
    words = [re.sub(r"^torchrun \S+ \d+ -m (?=logitstore )", "", line) for line in lines]
    return [line for line in words if line.startswith("logitstore ")]


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a store where the documents expect one."""
    folder = tmp_path_factory.mktemp("documents")
    make_store(folder / "runs" / "dump" / "swin_t-digits")
    return folder


def test_the_documents_have_commands_and_code() -> None:
    assert len(commands()) >= 8
    assert any(line.startswith("logitstore dump --teacher swin_l --topk 100") for line in commands()), "under torchrun"
    assert len(blocks("python")) >= 4


@pytest.mark.parametrize("line", commands())
def test_command_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    command = cli.main.commands[name]
    command.make_context(name, arguments, resilient_parsing=False)


@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_code_runs(document: str, code: str, digits_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits_folder)
    exec(compile(code, document, "exec"), {"__name__": "documented"})


def example(name: str) -> dict[str, Any]:
    """The namespace of the guide's example that defines this name."""
    (code,) = [code for document, code in blocks("python") if document == "guide.md" and f"def {name}(" in code]
    namespace: dict[str, Any] = {"__name__": "documented"}
    exec(compile(code, name, "exec"), namespace)
    return namespace


def test_the_teacher_of_the_guide_gives_logits() -> None:
    with torch.random.fork_rng(devices=[]):
        model = example("ensemble")["ensemble"]().eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_transform_of_the_guide_is_a_function_of_its_generator() -> None:
    corner = example("corner")["corner"]
    image = picture(40, 50)
    assert np.array_equal(corner(image, Rng(3)), corner(image, Rng(3)))
    assert corner(image, Rng(3)).shape == (3, 32, 32)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = BLOCK.sub("", document.read_text())
    missing = [target for target, _ in LINK.findall(text) if target and not (document.parent / target).exists()]
    assert not missing


def test_every_command_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text()
    assert isinstance(cli.main, click.Group)
    assert not [name for name in cli.main.commands if f"`{name}`" not in guide]
