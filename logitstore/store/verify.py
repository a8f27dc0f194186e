"""``verify_store``: recompute every checksum of a store. Views are replayed elsewhere (``logitstore.recheck``)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from logitstore.errors import DamagedError, IncompleteError
from logitstore.store.commits import Commit, check_object, commit_key
from logitstore.store.layout import COMMITS, METADATA, array_layouts, metadata_documents
from logitstore.store.opening import open_store
from logitstore.store.reader import Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a check of a store found."""

    ok: bool
    """Whether the store is whole: nothing missing, nothing altered."""
    records_checked: int
    """Records whose stored bytes are what was committed."""
    errors: tuple[str, ...] = ()
    """One sentence for each thing that is missing or altered."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that is odd but harms nothing."""
    views_checked: int = 0
    """Views replayed and compared with their witnesses."""
    witnesses: int | None = None
    """Views in committed shards that have a witness: no others can be compared; None where no data set was named."""
    kl: float | None = None
    """Mean divergence of a re-run teacher from the stored records, in nat; None where none ran."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        values = dataclasses.asdict(self)
        return {**values, "errors": list(self.errors), "notes": list(self.notes)}


@dataclass
class _Findings:
    records: int = 0
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_store(path: str | os.PathLike[str], progress: Progress | None = None) -> VerifyReport:
    """Recompute every checksum: manifest, metadata of arrays, commits, objects.

    Args:
        path: of the store.
        progress: called with shards done and shards in all.

    Raises:
        StoreNotFoundError: there is nothing at this path.
        FormatError: what is there is no store, or one of another format version.
    """
    try:
        store = open_store(path)
    except DamagedError as exc:
        return VerifyReport(ok=False, records_checked=0, errors=(str(exc),))
    findings = _Findings()
    _check_metadata(store, findings)
    shards = [(epoch, shard) for epoch in range(store.num_epochs) for shard in range(store.num_shards)]
    missing: dict[int, list[int]] = {}
    for done, (epoch, shard) in enumerate(shards):
        try:
            findings.records += _check_shard(store, store.commit(epoch, shard), findings)
        except IncompleteError:
            missing.setdefault(epoch, []).append(shard)
        except DamagedError as exc:
            findings.errors.append(str(exc))
        if progress is not None:
            progress(done + 1, len(shards))
    findings.errors += [_missing_sentence(store, epoch, absent) for epoch, absent in missing.items()]
    _check_strays(store, {(epoch, shard) for epoch, absent in missing.items() for shard in absent}, findings)
    return VerifyReport(
        ok=not findings.errors,
        records_checked=findings.records,
        errors=tuple(dict.fromkeys(findings.errors)),  # every shard that needs a missing one names it
        notes=tuple(findings.notes),
    )


def _check_metadata(store: Store, findings: _Findings) -> None:
    """``open_store`` has compared manifest and arrays with their checksums; here the rest: copies and extents."""
    if not store.objects.exists(f"{COMMITS}/{METADATA}"):
        findings.errors.append(f"{store.path}/{COMMITS}/{METADATA} is missing; restore it from a copy.")
    group = json.loads(store.objects.get(METADATA))
    copies = group.get("consolidated_metadata", {}).get("metadata", {})
    for name, data in store.documents.items():
        document = json.loads(data)
        extent = [store.num_epochs, *document["shape"][1:]]
        if copies.get(name) != {**document, "shape": extent}:
            where = f"{store.path}/{METADATA}"
            findings.errors.append(f"{where}: the consolidated metadata differs from that of the array {name}.")
        if document["shape"] != extent:
            where = f"{store.path}/{name}/{METADATA}"
            findings.notes.append(f"{where}: the store was being extended; the same command again completes that.")


def _check_shard(store: Store, commit: Commit, findings: _Findings) -> int:
    """Number of intact records: the shard's, or 0."""
    before = len(findings.errors)
    for name, layout in array_layouts(store.manifest).items():
        key = layout.key(commit.epoch, commit.shard)
        try:
            check_object(store.objects, key, commit.objects[name])
        except DamagedError as exc:
            findings.errors.append(str(exc))
    if len(findings.errors) == before:
        try:
            store.form.check(commit)
        except (DamagedError, IncompleteError) as exc:
            findings.errors.append(str(exc))
    start, stop = store.shard_range(commit.shard)
    return stop - start if len(findings.errors) == before else 0


def _missing_sentence(store: Store, epoch: int, shards: list[int]) -> str:
    if len(shards) == store.num_shards:
        return f"Epoch {epoch} is missing: none of its {store.num_shards} shards is committed."
    numbers = ", ".join(map(str, shards[:8])) + (", ..." if len(shards) > 8 else "")
    return f"Epoch {epoch} is incomplete: {len(shards)} of {store.num_shards} shards are not committed ({numbers})."


def _check_strays(store: Store, missing: set[tuple[int, int]], findings: _Findings) -> None:
    """Objects without a commit, and whatever else lies in the store that the format does not know."""
    expected = set(metadata_documents(store.manifest))
    pending: set[str] = set()
    for layout in array_layouts(store.manifest).values():
        for epoch in range(store.num_epochs):
            for shard in range(store.num_shards):
                target = pending if (epoch, shard) in missing else expected
                target.add(layout.key(epoch, shard))
    expected |= {commit_key(epoch, shard) for epoch, shard in store.committed()}
    for key, _ in store.objects.walk():
        if key in pending:
            findings.notes.append(f"{store.path}/{key} has no commit and does not count.")
        elif key.startswith(f"{COMMITS}/") and ".claim" in key:
            findings.notes.append(f"{store.path}/{key}: a process is writing this shard, or was killed while it did.")
        elif key not in expected:
            findings.notes.append(f"{store.path}/{key} does not belong to the store.")
