"""The parts of ``benchmarks/minivit.py``: the paper's rows, the steps that measure them, the report.

========== ===========================================================================
module     what lives there
========== ===========================================================================
rows       Tables 1 and 3 of the paper, and what is trained for each row
setting    what the protocol is run on
protocol   the list of steps
commands   the step that counts and times architectures
report     from finished steps to tables
========== ===========================================================================
"""
