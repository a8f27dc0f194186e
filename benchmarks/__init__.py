"""Measurements: each script answers one question, prints its ceiling first and ends in one JSON line."""

from logitstore import process

process.prepare()  # as the command line does, and before torch loads
