"""Logits that come back from a dense store: from the teacher through the dump, the reader and the loader."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import loader_stores
import numpy as np
import pytest
import torch
from helpers import MemoryImages, write_images
from loader_stores import PLAIN, SIZE
from store_cases import DENSE, SMALL, write_store
from train_cases import SUBSET, make_store

import cli
from logitstore.errors import InputError
from logitstore.images import ImageSet, open_images
from logitstore.loader import Batch, ViewLoader, stored_spec
from logitstore.store import Store, open_store
from logitstore.store.dense import decode_logits
from logitstore.store.values import quantise
from logitstore.teacher import load_teacher
from tests.convert_cases import converted

CLASSES = 10


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two epochs of 200 digits with mixed views, labelled by the fixed teacher of ``train_cases``."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "mixed.yaml").write_text("base: tinyvit\nmixup: 0.8\ncutmix: 1.0\n")
    options = {"topk": CLASSES, "floor": 0.0, "values": "f16", "logz": True, "view": str(folder / "mixed.yaml")}
    return open_store(make_store(folder / "store", **options))


def images_of(store: Store) -> ImageSet:
    return open_images("digits", subset=store.num_samples)


def loader(store: Store, **options: object) -> ViewLoader:
    images = images_of(store)
    values = {"batch_size": 32, "workers": 1, "logits": True, **options}
    return ViewLoader(images, stored_spec(store, flippable=images.flippable), store=store, **values)  # type: ignore[arg-type]


def by_sample(batches: list[Batch]) -> dict[int, bytes]:
    """The logits of each sample."""
    found: dict[int, bytes] = {}
    for batch in batches:
        assert batch.logits_BC is not None
        for sample, logits in zip(batch.sample_B.tolist(), batch.logits_BC, strict=True):
            found[sample] = logits.tobytes()
    return found


def test_logits_are_the_teachers_to_the_rounding_of_float16(dense: Store) -> None:
    teacher = load_teacher("train_cases:pooled_teacher", size=32, device="cpu")
    for batch in loader(dense, batch_size=64).batches(1):
        expected = teacher.logits(batch.views_BCHW).double().numpy()
        assert batch.logits_BC is not None and batch.logits_BC.dtype == np.float32
        shift = np.abs(batch.logits_BC - expected)
        logp = expected - torch.logsumexp(torch.from_numpy(expected), 1, keepdim=True).numpy()
        assert (shift <= 2.0**-11 * np.abs(logp) + 2e-6).all()
        assert shift.max() > 2e-5, "float16 rounds; values this exact came from elsewhere"


def test_logits_of_a_packed_store_are_those_of_the_standard_one(dense: Store, tmp_path: Path) -> None:
    converted(dense.path, tmp_path / "p", base_epochs=1)
    for epoch in range(2):
        assert np.array_equal(open_store(tmp_path / "p").logits(epoch, 3, 190), dense.logits(epoch, 3, 190))


def test_logits_of_any_range_equal_those_of_the_reader(dense: Store) -> None:
    whole = dense.logits(0, 0, SUBSET)
    assert whole.shape == (SUBSET, CLASSES)
    for start, stop in ((0, 1), (63, 65), (60, 200), (199, 200)):
        assert np.array_equal(dense.logits(0, start, stop), whole[start:stop])
    records = dense.read(0, 0, SUBSET)
    assert records.logz is not None
    np.testing.assert_allclose(np.log(np.exp(whole).sum(1)), records.logz, atol=2e-3)
    assert np.array_equal(whole.argmax(1), records.index[:, 0])


@pytest.mark.parametrize(
    "options",
    [{"shuffle_seed": 3}, {"size": 48}, {"batch_size": 7, "workers": 3}, {"topk": 2}],
    ids=["shuffled", "other-size", "odd-batches", "topk"],
)
def test_a_samples_logits_do_not_depend_on_how_it_is_read(dense: Store, options: dict[str, object]) -> None:
    plain, other = by_sample(list(loader(dense).batches(0))), by_sample(list(loader(dense, **options).batches(0)))
    assert plain == other and len(plain) == SUBSET


def test_ranks_share_a_batch(dense: Store) -> None:
    parts: dict[int, bytes] = {}
    for rank in range(2):
        parts |= by_sample(list(loader(dense, rank=rank, world=2).batches(0)))
    assert parts == by_sample(list(loader(dense).batches(0)))


def test_logits_are_read_where_asked_for_only(dense: Store) -> None:
    assert next(iter(loader(dense, logits=False).batches(0))).logits_BC is None


def test_far_below_the_smallest_mass_logits_are_still_there() -> None:
    logp = np.array([[-1e-3, -7.0, -150.0, -4000.0]], np.float32)
    index = np.array([[2, 0, 3, 1]], np.uint16)
    logits = decode_logits(index, quantise(logp, "f16"), np.array([30.0], np.float32), 4)
    expected = 30 + np.array([[-7.0, -4000.0, -1e-3, -150.0]])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=4000 * 2**-11)
    assert logits[0, 3] == -120.0


def test_of_a_skipped_sample_there_are_none_and_its_pair_weighs_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"{number}.png" for number in range(64)])
    broken = tmp_path / "images" / "7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "mixed.yaml").write_text("base: crop_flip\nmixup: 1.0\n")
    store = open_store(
        make_store(
            tmp_path / "store", data=str(tmp_path / "images"), subset=None, size=32, epochs=1, skip_bad=True,
            topk=CLASSES, floor=0.0, values="f16", logz=True, view=str(tmp_path / "mixed.yaml"),
        )
    )
    images = open_images(str(tmp_path / "images"))
    (batch,) = ViewLoader(images, stored_spec(store), store=store, batch_size=64, workers=1, logits=True).batches(0)
    assert batch.logits_BC is not None
    assert np.array_equal(np.isnan(batch.logits_BC).all(1), batch.weight_B == 0)
    assert np.array_equal(np.isnan(batch.logits_BC).any(1), batch.weight_B == 0)
    assert (batch.weight_B == 0).sum() == 2


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"topk": 5}, "keeps the top 5 of 11 classes as f16 with their"),
        ({"floor": 1e-3}, "keeps the top 11 of 11 classes above 0.001 as f16 with their"),
        ({"values": "q8"}, "keeps the top 11 of 11 classes as q8 with their"),
        ({"logz": False}, "keeps all 11 log-probabilities without their"),
    ],
    ids=["topk", "floor", "values", "logz"],
)
def test_a_store_without_logits_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, changes: dict[str, object], kept: str
) -> None:
    store = write_store(tmp_path / "store", replace(DENSE, teacher={"name": "my teachers:one"}, **changes))  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        store.logits(0, 0, 4)
    assert kept in str(caught.value)
    command = "logitstore dump --teacher 'my teachers:one' --topk 11 --floor 0 --values f16 --logz --store "
    assert command + f"{tmp_path / 'store'}-dense" in str(caught.value)


def test_the_command_in_the_refusal_makes_a_store_with_logits(tmp_path: Path) -> None:
    """Its options, read by the command line's own parser, are those of a dense store."""
    store = write_store(tmp_path / "store", SMALL)
    with pytest.raises(InputError) as caught:
        store.require_logits()
    words = shlex.split(str(caught.value).partition(" and logitstore ")[2])
    assert words[0] == "dump"
    values = cli.main.commands["dump"].make_context("dump", words[1:]).params
    assert (values["topk"], values["floor"], values["values"], values["logz"]) == (11, 0.0, "f16", True)
    kept = store.manifest
    assert (values["epochs"], values["seed"], values["size"]) == (kept.num_epochs, kept.run_seed, kept.view["size"])
    assert "with the --data, --subset, --view and --checkpoint of this one" in str(caught.value)


def test_the_loader_refuses_before_the_first_batch(tmp_path: Path) -> None:
    images = MemoryImages(20, side=SIZE)
    store = loader_stores.dump(tmp_path / "store", images, PLAIN)
    with pytest.raises(InputError, match="the teacher's logits do not come back"):
        ViewLoader(images, PLAIN, store=store, batch_size=4, workers=0, logits=True)
