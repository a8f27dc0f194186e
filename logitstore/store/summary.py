"""What a store is and how much of it is there, for ``logitstore info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logitstore.store.reader import Store


def summary(store: Store) -> dict[str, Any]:
    """A store in JSON values; nothing of its records is read."""
    m = store.manifest
    committed = store.committed()
    records = sum(stop - start for start, stop in (store.shard_range(shard) for _, shard in committed))
    size = sum(size for _, size in store.objects.walk())
    model = store.form.model_bytes
    return {
        "path": str(store.path),
        "store_id": store.store_id,
        "num_samples": m.num_samples,
        "num_epochs": m.num_epochs,
        "num_classes": m.num_classes,
        "topk": m.topk,
        "floor": m.floor,
        "mass": m.mass,
        "gain": m.gain,
        "values": m.values,
        "logz": m.logz,
        "codec": m.codec.to_dict(),
        "run_seed": m.run_seed,
        "views_from": m.views_from,
        "shard_size": m.shard_size,
        "records": records,
        "bytes": size,
        "bytes_per_record": size / records if records else None,
        **({} if model is None else {"model_bytes": model, "model_bytes_per_sample": model / m.num_samples}),
        "complete": len(committed) == store.num_epochs * store.num_shards,
        "complete_epochs": store.complete_epochs(),
        "shards": {"committed": len(committed), "total": store.num_epochs * store.num_shards},
        "teacher": m.teacher,
        "dataset": m.dataset,
        "view": m.view,
        "inference": m.inference,
        "versions": m.versions,
    }
