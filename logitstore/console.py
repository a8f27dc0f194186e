"""What every command needs of the terminal: notes, results, exit codes, and the options that several commands share.

``Commands`` is the group that turns errors and signals into one sentence and an exit code. The commands themselves live
in ``cli``. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from logitstore.errors import InputError, LogitStoreError
from logitstore.launch import Launch

Command = TypeVar("Command", bound=Callable[..., Any])

_TYPED = click.core.ParameterSource.COMMANDLINE
_SHARED = ("finetune", "dump", "train")  # commands that several processes may carry out together, and go on with
_SHOWN = 20  # entries of a list in text output; --json gives all


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread so that claims are released on the way out."""


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _after_a_stop(ctx: click.Context) -> str:
    if ctx.invoked_subcommand in ("pack", "convert", "contract", *_SHARED):
        return "what is done is kept, and the same command goes on from there"
    return "nothing was written, and the same command starts anew"


class Commands(click.Group):
    """Turns what can go wrong into one sentence on standard error and an exit code; never a traceback for users."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name; refuses to do in several processes what one does."""
        name, command, rest = super().resolve_command(ctx, args)
        launch = Launch.from_environment()
        if launch.world > 1 and name not in _SHARED:
            with launch.alike():
                raise InputError(
                    f"{name} is done by one process, and there are {launch.world}: start it without torchrun (or unset "
                    f"RANK and WORLD_SIZE). Several share the work of {', '.join(_SHARED)}."
                )
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _sigterm_unwinds():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except LogitStoreError as error:
            if str(error):  # else another process says it
                say(f"logitstore: {error}")
            ctx.exit(error.exit_code)
        except click.ClickException as error:
            if not _is_main():  # the main process says the same
                ctx.exit(error.exit_code)
            raise
        except KeyboardInterrupt:
            if _is_main():
                say(f"logitstore: stopped by Ctrl-C; {_after_a_stop(ctx)}.")
            ctx.exit(130)
        except Terminated:
            if _is_main():
                say(f"logitstore: stopped by SIGTERM; {_after_a_stop(ctx)}.")
            ctx.exit(143)
        except BrokenPipeError:
            # The reader went away (| head): what is still buffered must not raise again at interpreter exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        except OSError as error:
            # A path that cannot be made, a disk that is full or fails: the system's own words are the sentence.
            where = error.filename or "a file or a device"
            say(f"logitstore: {where} cannot be used ({error.strerror or error}); mend it, or name another.")
            ctx.exit(2)


def _is_main() -> bool:
    """Whether this process speaks for those that were started together."""
    return Launch.from_environment().is_main


def typed(options: dict[str, Any]) -> dict[str, Any]:
    """Of the options of the running command, those that stand on the command line."""
    ctx = click.get_current_context()
    return {name: value for name, value in options.items() if ctx.get_parameter_source(name) is _TYPED}


def say(line: str) -> None:
    """A note for the user, on standard error."""
    click.echo(line, err=True)


def show(report: dict[str, Any], as_json: bool) -> None:
    """A result on standard output: one JSON object, or aligned ``name  value`` lines; lists of objects as tables.

    Of processes that were started together the main one alone shows it.
    """
    if not _is_main():
        return
    if as_json:
        click.echo(json.dumps(report))
        return
    width = max(map(len, report), default=0)
    for name, value in report.items():
        if isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
            click.echo("\n".join([f"{name}:", *_table(value)]))
        else:
            click.echo(f"{name:<{width}}  {_named(name, value)}")


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a row under the first row's names, numbers to the right."""
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    lines = (
        "  ".join(
            f"{cell:>{width}}" if to_right else f"{cell:<{width}}"
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        for line in cells
    )
    return [f"  {line}".rstrip() for line in lines]


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else _plain(value)


def _named(name: str, value: Any) -> str:
    if name.endswith("interval") and isinstance(value, list | tuple) and len(value) == 2:
        return " to ".join(map(_plain, value))
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_named(name, item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        more = f", … ({len(value)})" if len(value) > _SHOWN else ""
        return ", ".join(map(_plain, value[:_SHOWN])) + more or "none"
    return "yes" if value is True else "no" if value is False else "-" if value is None else str(value)


class Pair(click.ParamType):  # type: ignore[type-arg]  # older clicks have no generic ParamType
    """``A:B`` as two numbers; with ``single``, ``A`` alone means ``A:A``. Errors show the example."""

    name = "pair"

    def __init__(self, *, example: str, single: bool = False) -> None:
        self.example, self.single = example, single

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What --help shows for a value."""
        return "A|A:B" if self.single else "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Two numbers of the text."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(":")
        try:
            first, second = map(float, parts * 2 if self.single and len(parts) == 1 else parts)
        except ValueError:
            wanted = "a number or two numbers" if self.single else "two numbers"
            self.fail(f"{value!r} is not {wanted}, as in {self.example}.", param, ctx)
        return first, second


class Numbers(click.ParamType):  # type: ignore[type-arg]  # as above
    """``A,B,...`` as numbers. Errors show the example."""

    name = "numbers"

    def __init__(self, *, example: str) -> None:
        self.example = example

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What --help shows for a value."""
        return "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers of the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(map(float, str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, as in {self.example}.", param, ctx)


class Quantity(click.ParamType):  # type: ignore[type-arg]  # as above
    """A whole number, also in thousands or millions: ``5_400_000``, ``850K``, ``5.4M``."""

    name = "quantity"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What --help shows for a value."""
        return "N|NK|NM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of the text."""
        text = str(value)
        unit = {"K": 1_000, "M": 1_000_000}.get(text[-1:].upper(), 1)
        try:
            return round(float(text if unit == 1 else text[:-1]) * unit)
        except (OverflowError, ValueError):
            self.fail(f"{value!r} is no number, as in 5400000, 850K or 5.4M.", param, ctx)


def one_or_several(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> Any:
    """What an option that may be repeated was given: None, one value, or all of them."""
    return values if len(values) > 1 else next(iter(values), None)


def several(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """What an option that may be repeated was given: None, or all values."""
    return values or None


def listed(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """The parts of a text between commas; None where there is none."""
    return None if value is None else tuple(part.strip() for part in value.split(","))


option = partial(click.option, show_default=True)
count = click.IntRange(min=1)
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def adding(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    """A decorator that gives a command these options, in their order."""

    def add_all(command: Command) -> Command:
        for add in reversed(options):
            command = add(command)
        return command

    return add_all


def machine_options(command: Command) -> Command:
    """--batch-size, --workers, --device, --dtype: how it is computed."""
    for add in (
        option("--dtype", default="auto", help="float32, bfloat16 or float16; auto is bfloat16 on a GPU."),
        option("--device", default="auto", help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one."),
        option("--workers", type=count,
               help="Threads that decode and render.  [default: one per core, half as many on a CPU]"),
        option("--batch-size", type=count, help="Images per step of the model."),
    ):
        command = add(command)
    return command
