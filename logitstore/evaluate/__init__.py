"""How good a model file is: accuracy on labelled images, and beside other models on the same images.

========== ===========================================================================
module     what lives there
========== ===========================================================================
config     what to measure: one field per option of the command
result     what was measured, as JSON and as readable lines
real       the ReaL labels of ImageNet's validation images
compare    agreement with a teacher, gains over a baseline
run        ``evaluate``: from configuration to result
========== ===========================================================================
"""

from __future__ import annotations

from logitstore.evaluate.config import EvalConfig
from logitstore.evaluate.result import EvalResult
from logitstore.evaluate.run import evaluate

__all__ = ["EvalConfig", "EvalResult", "evaluate"]
