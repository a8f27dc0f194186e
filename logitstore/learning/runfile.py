"""Run files: the options of a run as YAML, written beside the weights and read by ``--config``.

A run file is what a run saved (``options``, which repeat it, and ``effective``, which says what they came to), or a
mapping of options written by hand. It is read by YAML 1.2's core rules, so ``1e-3`` is a number, ``12:30`` and ``no``
are text, and what has another type than its option is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from logitstore.errors import InputError
from students.plain import typed
from students.recipes import Recipe

_PARTS = {"options", "effective"}
_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_RULES = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
)


class _TwiceError(yaml.YAMLError):
    """A key stands twice in a mapping, which YAML forbids and PyYAML does not notice."""


class _Loader(yaml.SafeLoader):
    """By the core rules alone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node, with no key twice."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _TwiceError(f"{key.value} twice, on lines {lines[key.value]} and {line}")
                lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the core rules, or the older ones that other readers follow, would take for something else."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _RULES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})\\Z"), _first)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order, lists on one line."""
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )


def read_options(path: str | PathLike[str], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a run file gives, as the types that they are declared with.

    Args:
        path: the file.
        hints: the declared type of each option; one called ``recipe`` may be a mapping of a recipe's fields.

    Raises:
        InputError: the file cannot be read, is no mapping, or gives an option that is unknown, of another type, or
            there twice.
    """
    values = _mapping(path)
    if values and set(values) <= _PARTS:
        saved = values.get("options")
        if not isinstance(saved, dict):
            raise InputError(f"{path} has no mapping of options under options.")
        values = saved
    options: dict[str, Any] = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=2)
            hint = f"; close ones are {', '.join(near)}" if near else ""
            raise InputError(f"{path} gives {written}, which is no option{hint} (see --help).")
        if name in options:
            raise InputError(f"{path} gives {name} twice, with - and with _: leave one out.")
        try:
            options[name] = _recipe(value) if name == "recipe" else typed(name, value, hints[name])
        except ValueError as exc:
            raise InputError(f"{path}: {exc}") from exc
    return options


def _recipe(value: Any) -> Recipe | str | None:
    if isinstance(value, dict):
        return Recipe.from_dict(value)
    name: str | None = typed("recipe", value, str | None)
    return name


def _mapping(path: str | PathLike[str]) -> dict[Any, Any]:
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except IsADirectoryError as exc:
        raise InputError(f"{path} is a folder: give a file of options, such as the run.yaml in it.") from exc
    except (OSError, UnicodeDecodeError) as exc:
        problem = "it is no text" if isinstance(exc, UnicodeDecodeError) else exc.strerror
        raise InputError(f"{path} cannot be read ({problem}): give a file of options, such as a run.yaml.") from exc
    except _TwiceError as exc:
        raise InputError(f"{path} gives {exc}: leave one out.") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(exc, "problem", None) or str(exc).splitlines()[0]
        raise InputError(f"{path} is no YAML ({where}{problem}).") from exc
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of options to values, as in the run.yaml of a run.")
    return values
