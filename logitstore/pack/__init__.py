"""Packing: every image of a data set once, small, into large shards that are read quickly in any order.

A split is cut into shards, and a run that was stopped or killed goes on with the first one that is not committed. What
was packed is a data set like any other, with a fingerprint of its own: its pixels are not the originals'.

========== =============================================================================
module     what lives there
========== =============================================================================
writer     the shards of a split, committed one by one
finish     from committed shards to the arrays and the manifest of a split
========== =============================================================================

The reader is ``logitstore.images.packed``; the format stands in docs/format.md.
"""
