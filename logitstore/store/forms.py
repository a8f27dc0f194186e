"""Which form a store has: the one place where codecs become ways of reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from logitstore.pcg import VisitOrder
from logitstore.store.blocks import Form
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.commits import Commit
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.standard_form import StandardForm


def form_of(
    objects: LocalObjects,
    manifest: Manifest,
    documents: Mapping[str, bytes],
    *,
    commit: Callable[[int, int], Commit],
    order: Callable[[int], VisitOrder],
) -> Form:
    """The form of a store.

    Args:
        objects: where its bytes lie.
        manifest: what it holds.
        documents: ``zarr.json`` of each array by name.
        commit: gives a shard's commit, or raises what a read of the shard should.
        order: gives the order in which an epoch visits the samples.
    """
    if isinstance(manifest.codec, PackedCodec):
        from logitstore.store.packed_form import PackedForm  # numba loads where records are coded with it

        return PackedForm(objects, manifest, documents, commit, order)
    return StandardForm(objects, manifest, documents)
