"""The model card for people: a Markdown page made of the card, and the code that uses the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logitstore.cards import Card
from logitstore.export.formats import Format
from logitstore.export.subject import Subject

_SHARES = (("top-1", "top1"), ("top-5", "top5"))


def render(subject: Subject, card: Card, kind: Format) -> str:
    """The page.

    Args:
        subject: the model.
        card: as it is written beside the file.
        kind: the file's format.
    """
    return "\n".join(
        [
            "---",
            "pipeline_tag: image-classification",
            *(["library_name: timm"] if "timm" in kind.imports else []),
            "---",
            f"# {subject.architecture}, {card.num_classes} classes, {card.size} px",
            "",
            *_table(_facts(subject, card)),
            "",
            "## Accuracy",
            "",
            _accuracy(card, subject.measured_size),
            "",
            "## How it was trained",
            "",
            *_table(_origin(card)),
            "",
            "`model.json` has every setting.",
            "",
            "## Use",
            "",
            "```python",
            _code(subject, card, kind),
            "```",
            "",
        ]
    )


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]


def _cell(text: str) -> str:
    """Text that ends no cell: names come from data sets and files."""
    return " ".join(text.split()).replace("|", "\\|")


def _facts(subject: Subject, card: Card) -> dict[str, str]:
    export, wants = card.export, card.preprocessing
    arguments = ", ".join(f"{name}={value}" for name, value in card.model_args.items())
    names = list(card.class_names or ())
    shown = ", ".join(names[:10]) + (f", … ({len(names)})" if len(names) > 10 else "")
    facts = {
        "architecture": f"`{subject.architecture}` of {subject.package}" + (f" ({arguments})" if arguments else ""),
        "parameters": f"{export['parameters']:,}",
        "multiply-accumulates": f"{export['macs'] / 1e9:.4g} G for one image",
        "input": f"`images`, float32 [batch, 3, {card.size}, {card.size}], RGB, (pixel / 255 - mean) / std",
        "mean, std": f"{_numbers(wants.mean)}; {_numbers(wants.std)}",
        "evaluation crop": f"{wants.crop_pct:g} of the short side, from the middle; {wants.interpolation}",
        "output": f"`logits`, float32 [batch, {card.num_classes}]",
        "classes": shown or "without names",
        "file": f"`{export['file']}`, SHA-256 {export['file_sha256']}",
        "weights": f"SHA-256 {card.sha256}",
        "checked": f"logits within {export['difference']:.2g} of the model's in batches of "
        + ", ".join(map(str, export["batch_sizes"])),
        "made with": ", ".join(f"{name} {version}" for name, version in export["versions"].items()),
    }
    return facts | ({"opset": str(export["opset"])} if "opset" in export else {})


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _accuracy(card: Card, measured_size: int | None) -> str:
    found = card.accuracy
    if found is None:
        return "It was not measured."
    shares = [
        f"{100 * found[f'{key}_share']:.2f}% {name} ({_percent(found[f'{key}_interval'])} at 95%)"
        for name, key in _SHARES
    ]
    where = f"{found['images']:,} images of {card.data.get('name', 'its data set')} ({found['split']})"
    text = f"{', '.join(shares)}, {where}."
    if measured_size != card.size:
        text += f" That was measured at {measured_size} px; at {card.size} px it was not."
    return text


def _percent(interval: Sequence[float]) -> str:
    return " to ".join(f"{100 * share:.2f}" for share in interval)


def _origin(card: Card) -> dict[str, str]:
    training, data = card.training, card.data
    recipe, rates = training.get("recipe") or {}, training.get("learning_rates") or {}
    stores = training.get("store") or []
    rows: dict[str, Any] = {
        "teacher": "; ".join(map(_model, training.get("teachers") or [])),
        "teacher in memory": _model(training.get("teacher_online")),
        "store": ", ".join([stores] if isinstance(stores, str) else stores),
        "weights of the stores": ", ".join(f"{weight:.4g}" for weight in training.get("weights") or []),
        "targets": training.get("targets"),
        "data": data and f"{data.get('name')}, {data.get('count'):,} images, fingerprint {data.get('fingerprint')}",
        "recipe": recipe.get("name"),
        "epochs": f"{card.epochs:g}" if card.epochs else None,
        "batch": recipe.get("batch_size"),
        "peak learning rate": rates.get("peak"),
        "loss": recipe and _loss(recipe),
        "started from": _model(training.get("init_from")),
        "seed": training.get("seed"),
    }
    told = {name: str(value) for name, value in rows.items() if value not in (None, "", {})}
    return told or {"origin": "not known: the weights came without a card"}


def _model(told: Mapping[str, Any] | None) -> str:
    """A model that a card names, with the hash of its weights."""
    if not isinstance(told, Mapping):
        return str(told or "")
    name = told.get("name") or told.get("model") or "weights without a card"
    return f"{name} (SHA-256 {told['sha256']})" if told.get("sha256") else str(name)


def _loss(recipe: Mapping[str, Any]) -> str:
    distillation, joint = recipe.get("distillation"), recipe.get("joint")
    if distillation == "none":
        return "cross-entropy with hard labels"
    return f"{distillation} with the teacher" + (f", joined with hard labels ({joint})" if joint != "none" else "")


def _code(subject: Subject, card: Card, kind: Format) -> str:
    wants = card.preprocessing
    known = [] if "timm" not in kind.imports or subject.package == "timm" else [subject.package]
    notes = {subject.package: f"  # registers {subject.architecture} with timm"} if known else {}
    modules = sorted([*kind.imports, *known, "numpy"])
    filter_name = wants.interpolation.upper()
    imports = "\n".join(f"import {module}{notes.get(module, '')}" for module in modules)
    return f"""\
import json
from pathlib import Path

{imports}
from PIL import Image, ImageOps

size, crop, mean, std = {card.size}, {wants.crop_pct}, {wants.mean}, {wants.std}
image = Image.open("image.png").convert("RGB")
image = ImageOps.fit(image, (size, size), Image.Resampling[{filter_name!r}], bleed=(1 - crop) / 2)
batch = ((numpy.asarray(image) / 255 - mean) / std).transpose(2, 0, 1)[None].astype("float32")

{kind.use(subject)}
names = json.loads(Path("model.json").read_bytes())["class_names"]
best = int(logits.argmax())
print(names[best] if names else best)"""
