"""The producer: show every sample to the teacher once per epoch, keep the top classes and the seed of the view.

The work is cut into shards, and making one is idempotent: claim it, make the views of its positions with the loader
that training uses (here with fresh seeds), run the teacher, select, encode, commit. What is committed is never made
again, so a run that was stopped, killed or shared among processes ends in the same bytes.

A process that meets a shard claimed by a live other one leaves it and takes the next. When nothing is left but shards
that others are making, it reports them and returns instead of waiting; a claim whose holder died is taken over by any
later run. Of processes that torchrun started, the main one waits, and reports for all.

Within a process everything overlaps: the loader's threads render views some batches ahead, into the next shards too,
the calling thread has the teacher work on the present one, one thread encodes the one before, one writes what is whole.

========== =============================================================================
module     what lives there
========== =============================================================================
config     what to dump, and how: one field per option of the command
share      which shards a process makes, and in which order
claiming   claims on them, as far ahead as views are made
shown      what the teacher is shown: images and views, fresh ones or those of another store
producer   images, views and teacher, checked before the first shard; records of batches
assembly   from records to commits, beside the teacher
loop       ``dump``: all of it together, and what is reported
========== =============================================================================

The store's format lives in ``store``, selection in ``topk``, views in ``views``.
"""

from logitstore.dump.config import DumpConfig, DumpResult
from logitstore.dump.loop import dump

__all__ = ["DumpConfig", "DumpResult", "dump"]
