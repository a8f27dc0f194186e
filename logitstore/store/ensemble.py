"""Several stores of the same views, read as one: the mean of what their teachers say. Shapes as in ``records``.

A record stands for a whole distribution: a kept class c has q(c) = p_c, each of the C - k others q(c) = tail / (C - k).
The mean of S distributions, sum_s w_s q_s(c) with weights of sum 1, is again a record, and exactly:

- A class that no store keeps has r = sum_s w_s tail_s / (C - k_s), whatever class it is. So the classes outside of the
  union of the kept ones share evenly what they have together, and (C - k) r is a tail, k being the size of the union.
- A class that some stores keep is a kept class of the mean. Its probability is r plus w_s (p_s - tail_s / (C - k_s))
  of each store that keeps it: where a store does not, its even share stays in r.

So no dense target is needed, of any number of stores, and nothing is lost but the rounding of float64 sums to float32.
A union of K kept classes each has at most S K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DamagedError, InputError, MismatchError
from logitstore.store.reader import Store
from logitstore.store.records import DecodedRecords, Records

_SHOWN = 4
_OTHER_CLASSES = "Distributions over other classes have no mean: take stores of teachers with the same classes."


class Ensemble:
    """Stores of the same views, read as the mean of their distributions.

    K, floor, values, codec, shard and chunk size may differ, and so may the epochs that are there. Whatever decides the
    views must agree: this is compared here, and seeds and witnesses wherever records are read.

    Safe to use from several threads.

    Args:
        members: two stores or more; the first one's numbers of classes are the common ones.
        weights: one for each, above 0; divided by their sum. None is the same for all.

    Raises:
        InputError: fewer than two stores, one of them twice, or weights that are not one positive number for each.
        MismatchError: they hold other views, or other classes.
    """

    def __init__(self, members: Sequence[Store], weights: Sequence[float] | None = None) -> None:
        self.members = tuple(members)
        """The stores."""
        if len(self.members) < 2:
            raise InputError("An ensemble needs at least two stores; read a single one by itself.")
        self.weights = normalised([1.0] * len(self.members) if weights is None else weights, len(self.members))
        """Of sum 1."""
        first = self.members[0]
        for place, member in enumerate(self.members):
            if twin := next((one for one in self.members[:place] if one.records_id == member.records_id), None):
                raise InputError(
                    f"The stores at {twin.path} and {member.path} are the same: leave one out, or give it more weight."
                )
            _require_same_views(first, member)
        named = next((member for member in self.members if member.class_names), first)
        self.class_names = named.class_names
        """Names of the classes, where a store knows them."""
        # Where the first store has no names, its numbers are those of the one that has.
        self._class_SC = np.stack([_common_numbers(named, member) for member in self.members])

    def __repr__(self) -> str:
        shares = zip(self.weights, self.members, strict=True)
        return f"<Ensemble of {' + '.join(f'{weight:g} {store.path}' for weight, store in shares)}>"

    @property
    def num_samples(self) -> int:
        """N."""
        return self.members[0].num_samples

    @property
    def num_classes(self) -> int:
        """C."""
        return self.members[0].num_classes

    def identity(self) -> dict[str, Any]:
        """What tells it from others, as JSON values."""
        return {"store": [member.records_id for member in self.members], "weights": list(self.weights)}

    def read(self, epoch: int, start: int, stop: int, *, topk: int | None = None) -> Records:
        """The mean of the records at positions ``start`` to ``stop`` of an epoch.

        Args:
            epoch: number of the epoch, in all stores.
            start: first position.
            stop: one after the last position, at most N.
            topk: read only the first k ranks of each store's records; the others' mass goes to their tails.

        Returns:
            As many ranks as all stores have together, at most C; weight 0 where any store skipped the sample; no
            ``logz``.

        Raises:
            MismatchError: the stores hold other views there.
            InputError: outside of a store.
            IncompleteError: a shard is not there.
            DamagedError: a stored object is not what was committed.
        """
        parts = [member.read(epoch, start, stop, topk=topk) for member in self.members]
        mean = mean_records(parts, self.weights, num_classes=self.num_classes, class_SC=self._class_SC)
        self._check_views(epoch, start, stop, parts, mean.weight)
        return mean

    def logits(self, epoch: int, start: int, stop: int) -> NDArray[np.float32]:
        """The mean of the teachers' logits, float32 [B, C]; NaN where any store skipped the sample.

        That is another mean than the one of ``read``: the squared error to it differs from the mean of the squared
        errors to each teacher's logits by a constant, so that its gradient is theirs.

        Raises:
            What ``read`` raises; and InputError where a store has no logits.
        """
        mean_BC = np.zeros((stop - start, self.num_classes), np.float32)
        for member, weight, class_C in zip(self.members, self.weights, self._class_SC, strict=True):
            mean_BC[:, class_C] += np.float32(weight) * member.logits(epoch, start, stop)
        return mean_BC

    def require_logits(self) -> None:
        """Refuse stores without logits: InputError, with the command that makes one that has them."""
        for member in self.members:
            member.require_logits()

    def _check_views(
        self, epoch: int, start: int, stop: int, parts: Sequence[Records], weight_B: NDArray[np.float32]
    ) -> None:
        """Refuse records of other views: other seeds, or other pixels where there are witnesses."""
        first = self.members[0]
        position_J, crc_J = first.witnesses(epoch, start, stop)
        for member, records in zip(self.members[1:], parts[1:], strict=True):
            if (rows := np.flatnonzero(records.seed != parts[0].seed)).size:
                row = int(rows[0])
                _differ(
                    f"The seed of the view at epoch {epoch}, position {start + row}",
                    first, int(parts[0].seed[row]), member, int(records.seed[row]),
                )  # fmt: skip
            other_J = member.witnesses(epoch, start, stop)[1]
            # Of a skipped sample there may be no view.
            for place in np.flatnonzero((other_J != crc_J) & (weight_B[position_J - start] > 0))[:1]:
                _differ(
                    f"The view at epoch {epoch}, position {position_J[place]}",
                    first, f"CRC-32C {crc_J[place]:08x}", member, f"CRC-32C {other_J[place]:08x}",
                )  # fmt: skip


def normalised(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """Weights divided by their sum.

    Raises:
        InputError: not so many as ``count``, or not all of them positive numbers.
    """
    if len(weights) != count:
        raise InputError(f"{count} stores need {count} weights, got {len(weights)}: give one for each, in their order.")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError(f"Weights of stores must be numbers above 0, got {', '.join(map(str, weights))}.")
    return tuple(weight / math.fsum(weights) for weight in weights)


def mean_records(
    parts: Sequence[Records],
    weights: Sequence[float],
    *,
    num_classes: int,
    class_SC: NDArray[np.integer[Any]] | None = None,
) -> Records:
    """The mean of the distributions that records stand for, as records: exact, see the head of this module.

    Args:
        parts: records of the same views, of one store each.
        weights: of sum 1.
        num_classes: C.
        class_SC: the common number of each store's classes; None where all number them alike.

    Returns:
        Ranks by probability descending, then by class ascending; sample and seed of the first store. Nothing is kept
        where any of the records keeps nothing.

    Raises:
        DamagedError: a record has a class that does not exist.
    """
    from logitstore.store.ensemble_kernels import mean_of_records  # numba loads where records are first read

    if class_SC is None:
        class_SC = np.broadcast_to(np.arange(num_classes), (len(parts), num_classes))
    ranks_S = [part.index.shape[1] for part in parts]
    count, index_BR = len(parts[0]), np.concatenate([part.index for part in parts], axis=1)
    out = DecodedRecords.empty(count, min(index_BR.shape[1], num_classes), index_BR.dtype)
    done = mean_of_records(
        index_BR,
        np.concatenate([part.prob for part in parts], axis=1),
        np.cumsum([0, *ranks_S[:-1]]),
        np.stack([part.kept for part in parts]),
        np.stack([part.tail for part in parts]),
        np.array(weights, np.float64),
        np.ascontiguousarray(class_SC, np.int64),
        out.index,
        out.prob,
        out.tail,
        out.kept,
    )
    if done < count:
        raise DamagedError(
            f"A record of sample {parts[0].sample[done]} keeps a class of {num_classes} or above: its store is damaged."
        )
    return Records(
        sample=parts[0].sample,
        seed=parts[0].seed,
        index=out.index,
        prob=out.prob,
        tail=out.tail,
        kept=out.kept,
        weight=(out.kept > 0).astype(np.float32),
        logz=None,
    )


def _require_same_views(first: Store, other: Store) -> None:
    """Refuse stores that do not hold the same views by what their manifests say."""
    ours, theirs = first.manifest, other.manifest
    for what, one, two in (
        ("The number of samples", ours.num_samples, theirs.num_samples),
        ("The run seed, which orders the samples,", ours.run_seed, theirs.run_seed),
        ("The fingerprint of the data set", ours.dataset.get("fingerprint"), theirs.dataset.get("fingerprint")),
    ):
        if one != two:
            _differ(what, first, one, other, two)
    names = [name for name in {**ours.view, **theirs.view} if ours.view.get(name) != theirs.view.get(name)]
    if names:
        one, two = (", ".join(f"{name} = {m.view.get(name)}" for name in names[:_SHOWN]) for m in (ours, theirs))
        _differ(f"The view spec ({', '.join(names)})", first, one, other, two)
    if ours.num_classes != theirs.num_classes:
        _differ("The number of classes", first, ours.num_classes, other, theirs.num_classes, remedy=_OTHER_CLASSES)


def _common_numbers(reference: Store, store: Store) -> NDArray[np.int64]:
    """The reference's number of each class of a store, by name where both have names."""
    numbers = np.arange(store.num_classes)
    names, own = reference.class_names, store.class_names
    if names is None or own is None or names == own:
        return numbers
    if sorted(names) != sorted(own) or len(set(names)) < len(names):
        place = next(i for i, pair in enumerate(zip(names, own, strict=True)) if pair[0] != pair[1])
        _differ(f"The name of class {place}", reference, names[place], store, own[place], remedy=_OTHER_CLASSES)
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[name] for name in own])


def _differ(what: str, first: Store, ours: object, other: Store, theirs: object, *, remedy: str | None = None) -> None:
    raise MismatchError(
        f"{what} of two stores that are to be read together",
        stored=f"{ours} in {first.path}",
        present=f"{theirs} in {other.path}",
        remedy=remedy or f"Make the second one on the views of the first: logitstore dump --views-from {first.path}.",
    )
