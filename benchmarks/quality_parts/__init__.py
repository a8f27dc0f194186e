"""The parts of ``benchmarks/quality.py``: what students are trained on, the steps that do it, the report.

========== ===========================================================================
module     what lives there
========== ===========================================================================
conditions what a student can be trained on, and which cut that takes
setting    what the protocol is run on
protocol   the list of steps
recut      a smaller store made of a dense one; what a store weighs and how far it is from the dense one
live       a run whose targets a teacher makes in every step
commands   the command line of these two
numbers    correlations with intervals
report     from finished steps to tables
========== ===========================================================================
"""
