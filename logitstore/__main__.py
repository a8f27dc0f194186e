"""``python -m logitstore`` and the ``logitstore`` command are the same; the only module that imports ``cli``."""

from __future__ import annotations

from cli import main

if __name__ == "__main__":
    main()
