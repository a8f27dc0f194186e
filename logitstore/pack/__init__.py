"""Packing: every image of a data set once, small, into large shards that are read quickly in any order.

A split is cut into shards, and a run that was stopped or killed goes on with the first one that is not committed. What
was packed is a data set like any other, with a fingerprint of its own: its pixels are not the originals'.

========== =============================================================================
module     what lives there
========== =============================================================================
config     what to pack, and how: one field per option of the command
sources    what is packed: a data set, or a stream that is read once
encode     from an image to the JPEG that is packed
run        ``pack``: which splits, and what is missing of them
writer     the shards of a split, committed one by one
finish     from committed shards to the arrays and the manifest of a split
verify     every checksum again
========== =============================================================================

The reader is ``logitstore.images.packed``; the format stands in docs/packed.md.
"""

from logitstore.pack.config import PackConfig, PackResult, SplitResult
from logitstore.pack.run import pack
from logitstore.pack.verify import PackReport, verify_packed

__all__ = ["PackConfig", "PackReport", "PackResult", "SplitResult", "pack", "verify_packed"]
