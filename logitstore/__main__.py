"""``python -m logitstore`` and the ``logitstore`` command are the same; the only module that imports ``cli``."""

from __future__ import annotations

import os

import cli


def main() -> None:
    """Run the command line in a process of its own."""
    # torch's threads spin at every barrier by default. As soon as anything else wants a core, be it our own threads
    # that render views, all wait for the one that lost its core: inference fell to a tenth. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cli.main()


if __name__ == "__main__":
    main()
