"""``contract``: a search, its journal and its bench."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from logitstore.cards import run_folder, write_atomically
from logitstore.contract.bench import Bench, Task
from logitstore.contract.config import ContractConfig
from logitstore.contract.journal import Entry, Journal
from logitstore.contract.picture import draw_contraction
from logitstore.contract.result import ContractResult, Step
from logitstore.drawing import require_drawing
from logitstore.errors import InputError
from logitstore.locks import locked
from logitstore.pcg import pcg32_hash
from logitstore.progress import ProgressFactory, start
from logitstore.views import Rng
from students.contract import NoCandidateError, Search, Space, Trial, carry_out

CONTRACT_DOMAIN = 0x636F6E74  # "cont": first word of the hashes that seed what candidates are drawn by
_LOW = 0xFFFFFFFF


def contract(config: ContractConfig, progress: ProgressFactory | None = None) -> ContractResult:
    """Contract a TinyViT step by step, or go on with the search in the folder.

    Called again with the same configuration it goes on where it was stopped, in any way and at any moment: candidates
    that are done with are read from the journal, one that was being trained resumes from its own checkpoint.

    Args:
        config: what to contract, and to what.
        progress: how to show progress; None is silent.

    Raises:
        InputError: something the user named cannot be used, or no candidate of a step meets its bounds.
        MismatchError: the folder holds another search, or store, data set and view spec do not belong together.
        ModelError: no model goes by the start's name.
    """
    if config.picture is not None:
        require_drawing(config.picture)
    task = Task.of(config)
    out = Path(config.out) if config.out else run_folder("contract", config.start, task.data)
    _require_room(out)
    _require_a_way_down(config, task)
    out.mkdir(parents=True, exist_ok=True)
    say = start(progress, None, "candidate").say
    with locked(out / ".lock", f"Another process is at work in {out}: wait until it ends, or give another --out."):
        journal = Journal(out / "journal.jsonl", task.identity)
        bench = Bench(config, task, journal, out, progress)
        for note in task.notes:
            say(note)
        try:
            result = _searched(config, task, journal, bench, say)
        except NoCandidateError as exc:
            raise InputError(f"{exc} {_way_out(config)}") from exc
        text = json.dumps(result.to_dict(), indent=2) + "\n"
        write_atomically(out / "contract.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if config.picture is not None:
        draw_contraction(result, config.picture)
    return result


def _searched(
    config: ContractConfig, task: Task, journal: Journal, bench: Bench, say: Callable[[str], None]
) -> ContractResult:
    """All that is left of a search, and what it comes to."""
    throughput = bench.throughput_of_start()
    target = config.target(throughput)
    parameters = task.count(task.start)
    say(f"{task.model}: {task.start}; {parameters:,} parameters, {throughput:,.4g} img/s. Target: {target}.")
    _require_something_to_do(config, task, throughput)
    if journal.throughput is None:
        journal.begin(throughput)
    search = Search(
        Space(start=task.start, size=task.size),
        count=task.count,
        throughput=throughput,
        target=target,
        steps=config.steps,
        candidates=config.candidates,
        draws=lambda number: Rng(int(pcg32_hash(CONTRACT_DOMAIN, config.seed & _LOW, config.seed >> 32, number))),
    )
    try:
        for entry in journal.entries:
            search.tell(entry.trial)
            bench.tidy(entry.trial)  # the call that added it may have been killed before it did
    except NoCandidateError:
        raise
    except ValueError as exc:  # of another version, which had another space
        raise InputError(
            f"The journal {journal.path} tells of candidates that there are not ({exc}) Give another --out."
        ) from exc
    if journal.entries:
        say(f"Going on after {len(journal.entries)} candidates in {journal.path}.")
    announced: set[int] = set()

    def announce(trial: Trial) -> None:
        if trial.step not in announced:
            announced.add(trial.step)
            say(f"Step {trial.step} of {config.steps}: {search.bounds}.")

    def measure(trial: Trial) -> float:
        announce(trial)
        return bench.measure(trial)

    def record(trial: Trial) -> None:
        announce(trial)
        say(_line(bench.add(trial), task.name(trial.factors)))

    best = carry_out(search, measure=measure, score=bench.score, record=record)
    entry = journal.entries[best.number]
    if entry.accuracy is None:
        raise InputError("The loss of no candidate that meets the bounds stayed finite: lower --base-lr.")
    names = {entry.trial.number: task.name(entry.trial.factors) for entry in journal.entries}
    return ContractResult(
        out=str(bench.out),
        model=task.model,
        data=task.data,
        size=task.size,
        device=task.identity["device"],
        start=task.start,
        start_parameters=parameters,
        start_throughput=throughput,
        steps=tuple(_step(search, number) for number in range(1, config.steps + 1)),
        entries=tuple(journal.entries),
        names={number: name for number, name in names.items() if name is not None},
        best=entry,
        checkpoint=str(bench.folder(best) / "model.safetensors"),
        command=config.train_command(best.factors, str(bench.out / "trained")),
        picture=config.picture,
    )


def _step(search: Search, number: int) -> Step:
    drawn, best = [trial for trial in search.trials if trial.step == number], search.best(number)
    assert best is not None, "each step ends with one that meets its bounds"
    trained = sum(trial.broken is None for trial in drawn)
    return Step(
        number=number,
        bounds=search.bounds_of(number),
        trained=trained,
        rejected=len(drawn) - trained,
        best=best.number,
    )


def _line(entry: Entry, name: str | None) -> str:
    """What became of a candidate, in a line."""
    trial = entry.trial
    what = f"candidate {trial.number}{f' ({name} as published)' if name else ''}, {trial.factors}"
    if trial.broken is not None:
        return f"{what}: rejected, {trial.broken}."
    figures = f"{trial.parameters:,} parameters, {trial.throughput:,.4g} img/s"
    return f"{what}: {figures}, top-1 {trial.score:.1%}{'' if entry.accuracy else ', for its loss is not finite'}."


def _require_room(out: Path) -> None:
    """Refuse a folder that holds anything but a search."""
    if out.is_dir() and not (out / "journal.jsonl").exists():
        if any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"{out} holds something that no contraction left there: give another folder with --out.")
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder: give another one with --out.")


def _require_a_way_down(config: ContractConfig, task: Task) -> None:
    """Refuse, before anything is measured, bounds that no model meets or that the start meets."""
    if config.min_throughput is None or config.min_throughput.endswith("x"):
        _require_something_to_do(config, task, 1.0)
    least = task.count(Space(start=task.start, size=task.size).smallest())
    if config.max_params is not None and config.max_params < least:
        raise InputError(
            f"The smallest model that {config.start} can be contracted to has {least:,} parameters, more than "
            f"--max-params {config.max_params:,}: raise it."
        )


def _require_something_to_do(config: ContractConfig, task: Task, throughput: float) -> None:
    if config.target(throughput).allow(task.count(task.start), throughput):
        bounds = {"--max-params": config.max_params, "--min-throughput": config.min_throughput}
        given = " and ".join(f"{option} {value}" for option, value in bounds.items() if value is not None)
        raise InputError(f"{config.start} keeps to the bounds as it is ({given}): there is nothing to contract.")


def _way_out(config: ContractConfig) -> str:
    """What to do where nothing meets the bounds."""
    given = {"raise --max-params": config.max_params, "lower --min-throughput": config.min_throughput}
    ways = [*(way for way, bound in given.items() if bound is not None), "give more --steps"]
    return f"To go on, {' or '.join(ways)}, with another --out."
