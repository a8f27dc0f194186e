"""``python -m logitstore`` and the ``logitstore`` command are the same; the only module that imports ``cli``."""

from __future__ import annotations

import cli
from logitstore import process


def main() -> None:
    """Run the command line in a process of its own."""
    process.prepare()
    cli.main()


if __name__ == "__main__":
    main()
