"""Measurements: each script answers one question, prints its ceiling first and ends in one JSON line."""
