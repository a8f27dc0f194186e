"""Whether a data set, a view spec and the views themselves are those that a store was made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore import __version__
from logitstore.errors import MismatchError, ViewError, WitnessError
from logitstore.images import ImageSet
from logitstore.views import ViewSpec, view_spec
from logitstore.views.spec import VERSION

if TYPE_CHECKING:
    from logitstore.loader.batch import Batch
    from logitstore.store import Store


def as_dumped(store: Store, images: ImageSet) -> ImageSet:
    """The images, or the evenly spaced part of them that the store was made of; unchanged where neither fits."""
    if images.num_samples > store.num_samples and images.fingerprint != store.manifest.dataset.get("fingerprint"):
        part = images.subset(store.num_samples)
        if part.fingerprint == store.manifest.dataset.get("fingerprint"):
            return part
    return images


def stored_spec(store: Store, view: str | None = None, *, flippable: bool = True) -> ViewSpec:
    """The view spec of a store, or the one that the user names instead, which ``check_store`` compares.

    Args:
        store: the store.
        view: as ``view_spec`` takes it. A store of a user's own transform needs it: code is never imported on a
            file's word.
        flippable: whether the data set may be mirrored.

    Raises:
        MismatchError: the rules that made the store's views are of another version.
        ViewError: the transform is not named.
    """
    stored = recorded_spec(store)
    if view is not None:
        named = view_spec(view, size=stored.size)
        return named if flippable else replace(named, hflip=0.0)
    if stored.transform is not None:
        raise ViewError(
            f"The views of the store at {store.path} are made by the transform {stored.transform}; code is never "
            f"imported on a store's word, so name it yourself: --view {stored.transform}"
        )
    return stored


def recorded_spec(store: Store) -> ViewSpec:
    """The view spec as a store has it. A user's own transform is in it by name only, and nobody may call it.

    Raises:
        MismatchError: the rules that made the store's views are of another version.
    """
    if (version := store.manifest.view.get("version")) != VERSION:
        raise MismatchError(
            f"The version of the rules that made the views of the store at {store.path}",
            stored=version,
            present=VERSION,
            remedy="Use the logitstore that made the store, or dump again.",
        )
    return ViewSpec.from_dict(store.manifest.view)


def check_images(store: Store, images: ImageSet) -> None:
    """Refuse a data set that a store was not made of; reads no record.

    Raises:
        MismatchError: packing, number of samples or fingerprint differs.
    """
    stored, present = store.manifest.dataset, images.describe()
    if stored.get("packed") != present.get("packed"):
        raise MismatchError(
            f"What was done to the images that the store at {store.path} was made of",
            stored=_packing(stored),
            present=f"{_packing(present)}, in {images.name} ({images.split})",
            remedy="Packed images have other pixels than their originals, and views come back only from those that the "
            "teacher saw: give them as --data, or dump these into a new store.",
        )
    if store.num_samples != images.num_samples:
        raise MismatchError(
            f"The number of images that the store at {store.path} was made of",
            stored=store.num_samples,
            present=f"{images.num_samples} in {images.name} ({images.split})",
            remedy="Give the data set (and the --subset) that was dumped, or dump this one into a new store.",
        )
    if stored.get("fingerprint") != images.fingerprint:
        raise MismatchError(
            f"The fingerprint of the data set that the store at {store.path} was made of",
            stored=stored.get("fingerprint"),
            present=f"{images.fingerprint} for {images.name} ({images.split})",
            remedy="Files were added, removed, renamed, changed or reordered: restore the data set, or dump this one.",
        )


def _packing(dataset: Mapping[str, Any]) -> str:
    """How the images of a data set, described as in a manifest, were packed."""
    packed = dataset.get("packed")
    if packed is None:
        return f"originals, not packed (fingerprint {dataset.get('fingerprint')})"
    return (
        f"packed to a short side of {packed['short_side']} px at quality {packed['quality']} from the images of "
        f"fingerprint {packed['source']}"
    )


def check_store(store: Store, images: ImageSet, spec: ViewSpec) -> None:
    """Refuse a data set or a view spec that a store was not made with; reads no record.

    Raises:
        MismatchError: number of samples, fingerprint or a field of the view spec differs.
    """
    check_images(store, images)
    stored_spec, present_spec = ViewSpec.from_dict(store.manifest.view).to_dict(), spec.to_dict()
    differing = [name for name in stored_spec if stored_spec[name] != present_spec[name]]
    if differing:
        raise MismatchError(
            f"The view spec that the store at {store.path} was made with ({', '.join(differing)})",
            stored=", ".join(f"{name} = {stored_spec[name]}" for name in differing),
            present=", ".join(f"{name} = {present_spec[name]}" for name in differing),
            remedy="Leave out --view to take the store's own, or dump with this one into a new store.",
        )


def numbered(images: ImageSet, class_names: tuple[str, ...] | None, num_classes: int) -> ImageSet:
    """The images with labels that number the given classes, matched by name where both sides have names.

    Raises:
        InputError: a class of the data set is not among them.
        MismatchError: the data set has more classes.
    """
    images = images.relabelled(class_names)
    if images.labels is not None and (images.num_classes or 0) > num_classes:
        raise MismatchError(
            f"The number of classes, between those that are known and those of {images.name} ({images.split}),",
            stored=num_classes,
            present=images.num_classes,
            remedy="Give a data set with the same classes.",
        )
    return images


def check_witnesses(store: Store, images: ImageSet, batch: Batch) -> None:
    """Compare a batch's witnesses with the store's. Views of weight 0 are left out: an image did not decode.

    Raises:
        WitnessError: a view differs.
    """
    for position, present in zip(batch.witness_position_J.tolist(), batch.witness_J.tolist(), strict=True):
        row = int(np.flatnonzero(batch.position_B == position)[0])
        if batch.weight_B[row] == 0.0:
            continue
        _, crc = store.witnesses(batch.epoch, position, position + 1)
        stored = int(np.asarray(crc)[0])
        if stored == present:
            continue
        before = dict(store.manifest.versions)
        now = {name: _present(name) for name in before}
        raise WitnessError(
            f"The view of {images.image_name(int(batch.sample_B[row]))} at epoch {batch.epoch}, position {position}",
            stored=f"CRC-32C {stored:08x}, made with {_listed(before)}",
            present=f"CRC-32C {present:08x}, made with {_listed(now)}",
            remedy="The teacher saw other pixels than a student would now: "
            + ("the image has changed, restore it" if before == now else "install the stored versions")
            + ", or dump again.",
        )


def _present(name: str) -> str:
    if name == "python":
        return platform.python_version()
    if name == "logitstore":
        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _listed(versions: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown versions"
