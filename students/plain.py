"""Plain values (of YAML, of JSON) as the types that a configuration declares for its fields."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def typed(name: str, value: Any, hint: Any) -> Any:
    """A plain value as a field's type: lists become tuples, whole numbers floats where a float is declared.

    Args:
        name: the field's, for the message.
        value: what was read.
        hint: its type: ``bool``, ``int``, ``float``, ``str``, None, and tuples and unions of these.

    Raises:
        ValueError: the value is of another type.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        try:
            return _converted(value, kind)
        except TypeError:
            continue
    wanted = [_word(kind) for kind in kinds if kind is not type(None)]
    raise ValueError(f"{name} must be {' or '.join(wanted)}, got {value!r}.")


def _converted(value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return _tuple(value, get_args(kind))
    fits = isinstance(value, float | int if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    return float(value) if kind is float else value


def _tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise TypeError
    return tuple(_converted(entry, kind) for entry, kind in zip(value, kinds, strict=True))


def _word(kind: Any) -> str:
    if get_origin(kind) is not tuple:
        return _WORDS[kind]
    kinds = get_args(kind)
    return "a list" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} numbers"
