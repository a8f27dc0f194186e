"""A teacher in memory, beside the student: what a store cannot keep, the relations inside of both, layer by layer.

This is the one exception to training with no teacher in memory, and it is asked for by name.

========= ============================================================================
module    what lives there
========= ============================================================================
layers    the layers of a transformer, found by running it once; what they give in a pass
matching  which layer of the student learns from which of the teacher
teacher   the teacher beside the student: its pass over the same views, and the losses
options   what is asked for
opening   from the options to such a teacher, checked against the student
========= ============================================================================

What is tapped is tapped with hooks that exist for one forward pass only: a model carries nothing of this before,
between, or afterwards. The losses themselves live in ``losses.relations``.
"""

from logitstore.online.opening import open_online
from logitstore.online.options import OnlineOptions, read_online
from logitstore.online.teacher import OnlineTeacher

__all__ = ["OnlineOptions", "OnlineTeacher", "open_online", "read_online"]
