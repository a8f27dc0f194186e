"""Before a long run: what records of a teacher cost and how good they are, on a sample of the user's own views.

The teacher is shown a few thousand views, as ``dump`` would show them. From its logits records are made for a grid of
cuts, written into real stores that are thrown away, weighed, decoded, and compared with the whole distributions. What
the sample took tells what the run will take.

========== =============================================================================
module     what lives there
========== =============================================================================
config     what to plan: one field per option of the command
grid       the cuts that are tried, and how good their records are
weigh      how many bytes records take in a store, and how many the rest of it takes
epochs     hours and bytes of storing some epochs and training through them again
result     what is found: the front, the recommendation, the command to run
picture    divergence against bytes
run        ``plan``: all of it together
========== =============================================================================

Cuts and divergence live in ``cuts``, the sample in ``sampling``.
"""

from logitstore.plan.config import PlanConfig
from logitstore.plan.result import PlanResult
from logitstore.plan.run import plan

__all__ = ["PlanConfig", "PlanResult", "plan"]
