"""A search that is killed again and again, for tests/test_contract_kill.py; it ends in one JSON line of results.

    contract_worker.py MATERIAL WHOLE KILLED STEPS EVERY

An unbroken search of STEPS steps goes to WHOLE. In KILLED one process after the other goes on, each with SIGKILL at one
of its events, EVERY events later each time: before a line of the journal, with half of it written, after it, or before
a step of training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract_cases import briefly_timed, config
from store_worker import finish, spawn

from logitstore.contract import contract
from logitstore.contract.journal import Journal
from logitstore.images import open_images
from logitstore.learning.learner import Learner


def search(material: Path, out: Path) -> None:
    contract(config(material, out, epochs=2, steps=int(sys.argv[4])))


def die_at(event: int) -> None:
    """Make this process SIGKILL itself at its nth event."""
    count = 0
    append, train_step = Journal._append, Learner.train_step

    def due() -> bool:
        nonlocal count
        count += 1
        return count == event

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def appended(journal: Journal, line: dict[str, object]) -> None:
        if due():
            die()
        if due():
            with journal.path.open("ab") as file:
                file.write(json.dumps(line).encode()[:20])
            die()
        append(journal, line)
        if due():
            die()

    def stepped(learner: Learner, *arguments: object, **options: object) -> object:
        if due():
            die()
        return train_step(learner, *arguments, **options)  # type: ignore[arg-type]

    Journal._append = appended  # type: ignore[method-assign, assignment]
    Learner.train_step = stepped  # type: ignore[method-assign, assignment]


def main() -> None:
    material, whole, killed = map(Path, sys.argv[1:4])
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    open_images("digits")  # scikit-learn takes long to import, so not in each process
    with briefly_timed():
        unbroken, codes = finish(spawn(lambda: search(material, whole))), killed_again_and_again(material, killed)
    print(json.dumps({"whole": unbroken, "codes": codes}))


def killed_again_and_again(material: Path, killed: Path) -> list[int]:
    """Exit codes of the processes that went on with one search, the last one alive."""
    codes, event = [-signal.SIGKILL], 2
    while codes[-1] == -signal.SIGKILL:

        def doomed(event: int = event) -> None:
            die_at(event)
            search(material, killed)

        codes.append(finish(spawn(doomed)))
        event += int(sys.argv[5])
    return codes[1:]


if __name__ == "__main__":
    main()
