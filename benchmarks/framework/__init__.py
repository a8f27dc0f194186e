"""Protocols: measurements that are lists of commands, done step by step, resumable, reported beside what they answer.

========== ===========================================================================
module     what lives there
========== ===========================================================================
launch     a command in a process of its own
child      what that process runs, told of the death of the one that started it
fetch      a step of its own: pretrained weights as a file
steps      the record of what is done; what is left to do, at once or several at a time
base       what every protocol is run on, and for how long
models     the steps that every protocol has: a teacher, a dense store, trained models
session    one call of a script, from its flags to the JSON line
shares     accuracies over seeds as cells of a table
beside     a run beside a paper's: orders, settings that differ, whose teacher
rows, setting, protocol, report
           the Swin compression framework's: ``benchmarks/swin_framework.py``
========== ===========================================================================
"""
