"""What a training run trains on: images, views and records, checked against each other before the first step.

With a store, the views are those that the teacher saw, in the store's order, and the targets are its records. Without
one (hard labels) the same loader makes fresh views from the run seed, with the seeds and the order that a dump with
this run seed would have.
"""

from __future__ import annotations

from dataclasses import replace

from logitstore.cards import run_folder
from logitstore.device import default_workers, resolve_device
from logitstore.errors import IncompleteError, InputError, LogitStoreError
from logitstore.images import ImageSet, open_images
from logitstore.learning.feed import Feed
from logitstore.learning.validation import open_validation
from logitstore.loader import ViewLoader, as_dumped, read_exclusion, stored_spec
from logitstore.loader.matching import check_store, numbered
from logitstore.store import Ensemble, Store, open_store
from logitstore.train.config import TrainConfig
from logitstore.views import ViewSpec, check_transform, view_spec
from students.recipes import Recipe


def open_feed(config: TrainConfig, recipe: Recipe, *, rank: int = 0, world: int = 1) -> Feed:
    """Open and check all that a run trains on; nothing is written.

    Args:
        config: what to train.
        recipe: its effective recipe.
        rank: which slice of each batch this process trains on.
        world: processes that share a batch.

    Raises:
        MismatchError: the store was made of other images, other class names, or another view spec.
        StoreError: there is no store, or no complete epoch in it.
        InputError: the data set has no labels where they are needed, or is smaller than a batch; or the store has no
            logits where they are needed.
    """
    images = open_images(config.data, subset=config.subset)
    notes: list[str] = []
    store: Store | Ensemble | None = None
    epochs: tuple[int, ...] = ()
    if recipe.uses_labels:
        images.require_labels(_use_of_labels(config, recipe))
    if not config.opens_store:
        spec = _own_spec(config, recipe, images)
        num_classes, class_names = images.num_classes or 0, images.class_names
    else:
        store, images = _open_store(config, images)
        epochs = _visited_epochs(store, recipe, notes)
        if isinstance(store, Ensemble):
            shares = zip(store.weights, store.members, strict=True)
            notes.append(f"Targets are a mean: {' + '.join(f'{w:.4g} of {member.path}' for w, member in shares)}.")
        spec = stored_spec(store.members[0], config.view, flippable=images.flippable)
        for member in store.members:
            check_store(member, images, spec)
        num_classes, class_names = store.num_classes, store.class_names
        images = numbered(images, class_names, num_classes)
    check_transform(spec, map(images.pixels, range(len(images))))
    exclusion = None if config.exclude is None else read_exclusion(config.exclude, images)
    if exclusion is not None:
        notes.append(
            f"{len(exclusion)} of {len(images)} samples are excluded by {exclusion.source}: no weight in the loss."
        )
    device = resolve_device(config.device)
    loader = ViewLoader(
        images,
        spec,
        run_seed=config.seed if store is None else None,
        store=store,
        batch_size=recipe.batch_size,
        workers=config.workers or default_workers(device),
        size=config.size or recipe.size,
        rank=rank,
        world=world,
        topk=config.topk,
        logits=recipe.distillation == "mse",
        skip_bad=config.skip_bad,
        drop_last=True,
        shuffle_seed=config.seed if config.shuffle else None,
        exclude=None if exclusion is None else exclusion.sample,
        pinned=device.type == "cuda",
    )
    if loader.num_batches() == 0:
        raise InputError(
            f"{images.name} has {len(images)} images to train on, fewer than one batch of {recipe.batch_size}: lower "
            "--batch-size."
        )
    if store is not None and not loader.checks_witnesses:
        notes.append(f"Views are made at {loader.size} px, the store's are {spec.size} px: witnesses are not checked.")
    validation = open_validation(
        config.data, config.val_data, class_names=class_names, num_classes=num_classes, notes=notes
    )
    return Feed(
        images=images,
        validation=validation,
        store=store,
        loader=loader,
        num_classes=num_classes,
        class_names=class_names,
        epochs=epochs,
        notes=tuple(notes),
        exclusion=exclusion,
    )


def _use_of_labels(config: TrainConfig, recipe: Recipe) -> str:
    """What a run needs labels for, for the message that there are none."""
    if config.hard_labels_only:
        return "to train with --hard-labels-only"
    if recipe.distillation == "none":
        return f"to train on, as the recipe {recipe.name} does with distillation none"
    return f"for the loss on hard labels in the joint loss {recipe.joint}"


def _own_spec(config: TrainConfig, recipe: Recipe, images: ImageSet) -> ViewSpec:
    """The views of a run without a store: the recipe's, or those a dump of the given name would show.

    Mixing is the recipe's where the view spec has none of its own.
    """
    size = config.size or recipe.size or images.default_size
    spec = view_spec(config.view or recipe.view, size=size)
    if not spec.mixes:
        spec = replace(spec, mixup=recipe.mixup, cutmix=recipe.cutmix)
    return spec if images.flippable else replace(spec, hflip=0.0)


def _open_store(config: TrainConfig, images: ImageSet) -> tuple[Store | Ensemble, ImageSet]:
    """The store of this run, or several as one, and as many of the images as it was made of."""
    if not config.stores:
        return _find_store(config, images)
    members = [open_store(path) for path in config.stores]
    return members[0] if len(members) == 1 else Ensemble(members, config.weights), as_dumped(members[0], images)


def _find_store(config: TrainConfig, images: ImageSet) -> tuple[Store, ImageSet]:
    """The one store among the default folders that was made of this data set.

    Of a store and its packed form it is the one with more epochs, and the standard one, which reads faster, of equals.
    """
    folder = run_folder("dump", "any", images.name).parent
    found: list[tuple[Store, ImageSet]] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            store = open_store(path)
        except LogitStoreError:
            continue
        dumped = as_dumped(store, images)
        if dumped.fingerprint == store.manifest.dataset.get("fingerprint"):
            found.append((store, dumped))
    forms = {(store.records_id, store.manifest.codec.name) for store, _ in found}
    if len(forms) == len(found) and len({records for records, _ in forms}) == 1:  # one, perhaps with its packed form
        return max(found, key=lambda pair: (len(pair[0].complete_epochs()), pair[0].manifest.codec.name == "standard"))
    if found:
        paths = ", ".join(str(store.path) for store, _ in found)
        raise InputError(
            f"There are {len(found)} stores of {images.name}: {paths}. Choose one with --store, or give it for each of "
            "several to learn from their mean."
        )
    raise InputError(
        f"There is no store of {images.name} under {folder}: make one with logitstore dump --teacher swin_t "
        f"--data {config.data}, or give one with --store."
    )


def _visited_epochs(store: Store | Ensemble, recipe: Recipe, notes: list[str]) -> tuple[int, ...]:
    """The stored epochs that the run goes through, again and again where it is longer; none of them has a gap.

    Of several stores these are epochs that all of them have.
    """
    members, committed = store.members, [member.committed() for member in store.members]
    begun = [sorted({epoch for epoch, _ in shards}) for shards in committed]
    for member, epochs in zip(members, begun, strict=True):
        if not epochs:
            raise IncompleteError(
                f"The store at {member.path} holds no shard yet: run logitstore {member.manifest.codec.command} again "
                "to make them."
            )
    visited = [epoch for epoch in begun[0] if all(epoch in epochs for epochs in begun)][: recipe.epochs]
    if not visited:
        theirs = "; ".join(f"{m.path} has {e[0]} to {e[-1]}" for m, e in zip(members, begun, strict=True))
        raise IncompleteError(f"The stores have no epoch in common: {theirs}. Let a dump make those that are missing.")
    for place, epoch in enumerate(visited):
        for member, shards in zip(members, committed, strict=True):
            _require_whole(member, shards, epoch, place)
    room = max(member.num_epochs for member in members)
    if len(visited) < min(room, recipe.epochs):
        whose, where = ("store's", "") if len(members) == 1 else ("stores'", " in all of them")
        notes.append(f"Of the {whose} {room} epochs {len(visited)} are there{where}; these are used.")
    if recipe.epochs > len(visited):
        notes.append(f"{recipe.epochs} epochs from a store of {len(visited)}: its epochs come again and again.")
    return tuple(visited)


def _require_whole(store: Store, committed: set[tuple[int, int]], epoch: int, place: int) -> None:
    """Refuse an epoch with a gap, the one after ``place`` others."""
    if missing := [shard for shard in range(store.num_shards) if (epoch, shard) not in committed]:
        raise IncompleteError(
            f"Epoch {epoch} of the store at {store.path} lacks {len(missing)} of {store.num_shards} shards, number "
            f"{missing[0]} first: run logitstore {store.manifest.codec.command} again to make what is missing"
            + (f", or train on what comes before it with --epochs {place}." if place else ".")
        )
