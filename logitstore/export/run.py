"""``export``: from a configuration to a file that was read back and agrees, and its card."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from logitstore import __version__
from logitstore.cards import Card, load_card, save_card, weights_path
from logitstore.catalogue import count_made
from logitstore.errors import InputError, ModelError
from logitstore.export.agree import BATCH_SIZES, difference
from logitstore.export.config import ExportConfig, ExportResult
from logitstore.export.formats import FORMATS, Format
from logitstore.export.readme import render
from logitstore.export.subject import Subject, load_subject
from logitstore.progress import ProgressFactory, start

_CARD, _README = "model.json", "README.md"


def export(config: ExportConfig, progress: ProgressFactory | None = None) -> ExportResult:
    """Write a model in another format, read it back as its user will, and compare the logits.

    Beside the file come its card, as JSON and as a page for people. Nothing is left where the logits differ.

    Args:
        config: which model, and how.
        progress: how to show notes; None is silent.

    Raises:
        ModelError: the weights cannot be read, what they are of is not known, the format cannot hold the model, or what
            was read back differs.
        InputError: a package is missing, or the folder holds something else.
    """
    kind = FORMATS[config.format]
    kind.require()
    out = Path(config.out).expanduser() if config.out else _default_folder(config)
    _require_own(out, config.format)
    with start(progress, None, "file", "export") as bar:
        subject = load_subject(config.checkpoint, model=config.model, size=config.size)
        bar.say(f"Writing {subject.card.model} at {subject.card.size} px as {config.format}, and reading it back.")
        with _work_folder(out) as folder:
            told = _written(subject, config.format, kind, folder)
            found = difference(subject, config.format, folder / kind.file)
            card = _card(subject, config.format, kind, folder, {**told, "difference": found})
            save_card(folder / kind.file, card)
            (folder / _README).write_text(render(subject, card, kind), encoding="utf-8")
            _move(folder, out)
    return ExportResult(
        out=str(out),
        file=str(out / kind.file),
        format=config.format,
        model=card.model,
        size=card.size,
        num_classes=card.num_classes,
        parameters=card.export["parameters"],
        macs=card.export["macs"],
        bytes=(out / kind.file).stat().st_size,
        difference=found,
    )


def _default_folder(config: ExportConfig) -> Path:
    weights = weights_path(config.checkpoint).resolve()
    of_run = {"model": weights.parent.name, "best": f"{weights.parent.name}-best"}
    return Path("runs") / "export" / f"{of_run.get(weights.stem, weights.stem)}-{config.format}"


def _require_own(out: Path, name: str) -> None:
    """Refuse a folder that holds anything else than an earlier export of this format."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    card = load_card(out / FORMATS[name].file) if out.is_dir() else None
    if card is None or card.export.get("format") != name:
        raise InputError(
            f"{out} holds something else than a model exported as {name}, which this would replace: choose another "
            "folder with --out."
        )


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards with all that is still in it."""
    near = next(parent for parent in out.absolute().parents if parent.is_dir())
    name = f".{out.absolute().name}.export"
    for unfinished in near.glob(f"{escape(name)}.*.tmp"):  # of a process that was killed while it wrote
        shutil.rmtree(unfinished, ignore_errors=True)
    folder = near / f"{name}.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    except OSError as exc:
        if exc.errno is None or (exc.filename is not None and folder not in Path(exc.filename).parents):
            raise
        raise OSError(exc.errno, exc.strerror, str(out)) from exc  # a name that the user knows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _written(subject: Subject, name: str, kind: Format, folder: Path) -> dict[str, Any]:
    try:
        return kind.write(subject, folder)
    except OSError:
        raise  # a disk that is full says nothing of the model
    except Exception as exc:  # exporters raise kinds of their own, about models of any kind
        lines = [line.strip() for line in f"{type(exc).__name__}: {exc}".splitlines() if line.strip()]
        raise ModelError(
            f"{subject.card.model} cannot be exported as {name} ({lines[0][:200]}): try another --format."
        ) from exc


def _card(subject: Subject, name: str, kind: Format, folder: Path, told: dict[str, Any]) -> Card:
    parameters, macs = count_made(subject.model, subject.card.size)
    others = {package: version(package) for package in ("timm", "torch", *kind.needs)}
    told = {
        "format": name,
        "file": kind.file,
        "file_sha256": _sha256(folder / kind.file),
        "parameters": parameters,
        "macs": macs,
        "accuracy_size": subject.measured_size,
        "batch_sizes": list(BATCH_SIZES),
        **told,
        # Our own is not asked of the installed packages: a checkout need not be one.
        "versions": {"python": platform.python_version(), "logitstore": __version__, **others},
    }
    return replace(subject.card, export=told)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _move(folder: Path, out: Path) -> None:
    """Put what was written where it belongs: a folder at once, the files of an earlier export one by one."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        folder.rename(out)
        return
    # The card last: until then the earlier one stands there, and its hashes tell that the file is another.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _CARD):
        path.replace(out / path.name)
