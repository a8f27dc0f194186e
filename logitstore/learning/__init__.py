"""What every run that trains a model shares, a student's as a teacher's.

========== ===========================================================================
module     what lives there
========== ===========================================================================
feed       what a run is fed with
criterion  the losses of a batch, and how they become one
beside     what a step asks of a second model, for losses on what is inside of both
step       what goes into a step, and what comes out of it
learner    the model, its optimiser, schedule and average; one step, alone or shared by several processes
folder     the run's directory: its configuration, checkpoints, its lock
runfile    the run's options as YAML, and reading them again
metrics    what is logged
validation the images to validate on, and how well a model does on them
run        a run under way: steps, epochs, checkpoints, validation, stopping
========== ===========================================================================
"""
