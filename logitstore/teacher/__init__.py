"""Teachers: models with known weights that turn views into logits.

``load_teacher`` finds the weights, makes the model, hashes what it loaded and refuses what gives no logits. What is
kept of the logits is decided in ``topk``, whose names are offered here too. A teacher always runs in eval mode and
without gradients, and never with random weights.
"""

from logitstore.teacher.finding import is_custom, load_teacher
from logitstore.teacher.model import Teacher
from logitstore.topk import TopK, select_topk

__all__ = ["Teacher", "TopK", "is_custom", "load_teacher", "select_topk"]
