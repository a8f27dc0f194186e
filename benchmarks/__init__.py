"""Measurements: each script answers one question, prints its ceiling first and ends in one JSON line."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; see ``logitstore.__main__``
