"""Progressive contraction: a constrained local search for a small TinyViT, from a large one (TinyViT, section 3.2).

========== ============================================================================
module     what lives there
========== ============================================================================
factors    the six contraction factors of a model, and the parameters they come to
space      all models that can be contracted to, and steps between neighbours
bounds     limits on parameters and throughput, which tighten from step to step
search     candidates, step by step, and what becomes of them
========== ============================================================================

The search trains and times nothing: it is handed functions that do, so it can be tried on a table of scores.
"""

from students.contract.bounds import Bounds, tightened
from students.contract.factors import Factors, count_parameters, published_factors, published_name
from students.contract.search import Draws, NoCandidateError, Search, Trial, carry_out
from students.contract.space import Space

__all__ = [
    "Bounds",
    "Draws",
    "Factors",
    "NoCandidateError",
    "Search",
    "Space",
    "Trial",
    "carry_out",
    "count_parameters",
    "published_factors",
    "published_name",
    "tightened",
]
