"""From positions to batches of views and records: the one path that ``dump`` and ``train`` share.

::

    position -> sample -> encoded bytes -> decode -> render(seed) -> mix with the neighbour -> uint8 view [3, H, W]

The producer gives fresh seeds, the consumer those of its store; all else is the same code. What a batch holds depends
on its positions alone: not on threads, batch size or rank. Models, losses and the store's format live elsewhere.
"""

from logitstore.loader.batch import Batch
from logitstore.loader.evaluation import EvalBatch, eval_batches
from logitstore.loader.exclusion import Exclusion, read_exclusion
from logitstore.loader.matching import as_dumped, stored_spec
from logitstore.loader.ordered import Workers
from logitstore.loader.prefetch import prefetched
from logitstore.loader.views import ViewLoader

__all__ = [
    "Batch",
    "EvalBatch",
    "Exclusion",
    "ViewLoader",
    "Workers",
    "as_dumped",
    "eval_batches",
    "prefetched",
    "read_exclusion",
    "stored_spec",
]
