"""The parts of ``benchmarks/swin_framework.py``: the paper's rows, the steps that measure them, the report."""
