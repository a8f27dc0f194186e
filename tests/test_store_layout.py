"""Manifest, store id, sizes, zarr metadata, codecs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from logitstore.checksums import canonical_json, crc32c_hex, is_intact, seal
from logitstore.errors import DamagedError, FormatError, InputError, MismatchError
from logitstore.store import Manifest, Store, choose_chunk_size, choose_shard_size
from logitstore.store.codecs import CODECS, Codec, codec_from_dict
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.codecs.standard import StandardCodec
from logitstore.store.layout import array_layouts, metadata_documents, read_manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.shards import ShardCoder
from tests.store_cases import COARSE, DENSE, SMALL, make_block

EXAMPLES: dict[str, Codec] = {
    "standard": StandardCodec(),
    "packed": PackedCodec(base=(0,), chunk=64, source=StandardCodec(level=3)),
}


@pytest.mark.parametrize(
    ("samples", "topk", "values", "batch", "expected"),
    [
        pytest.param(1_281_167, 10, "q8", 256, 65_536, id="imagenet, 20 shards"),
        pytest.param(1_281_167, 1000, "f16", 256, 16_384, id="imagenet dense, below 64 MiB"),
        pytest.param(14_197_122, 100, "q8", 256, 131_072, id="imagenet-22k, below 64 MiB"),
        pytest.param(14_197_122, 100, "q2", 256, 131_072, id="imagenet-22k, a byte each as well"),
        pytest.param(1_437, 10, "q8", 64, 256, id="digits, the least"),
        pytest.param(1, 1, "q8", 64, 256, id="one sample"),
        pytest.param(1_437, 10, "q8", 1024, 1024, id="never below the inference batch"),
        pytest.param(15 * 4096 + 1, 10, "q8", 64, 4096, id="exactly 16 shards"),
        pytest.param(15 * 4096, 10, "q8", 64, 2048, id="one sample fewer"),
    ],
)
def test_default_shard_size(samples: int, topk: int, values: Any, batch: int, expected: int) -> None:
    size = choose_shard_size(samples, topk, values, False, batch)
    assert size == expected
    chunk = choose_chunk_size(size, topk)
    assert size % chunk == 0 and size % 64 == 0 and chunk >= 64


def test_a_chunk_of_a_hundred_thousand_classes_stays_small() -> None:
    assert choose_chunk_size(256, 100_000, num_classes=100_000) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 0},
        {"num_epochs": 0},
        {"topk": 0},
        {"topk": 12},
        {"floor": 1.0},
        {"floor": -0.1},
        {"mass": 0.0},
        {"mass": 1.1},
        {"gain": -0.1},
        {"gain": float("inf")},
        {"values": "f32"},
        {"values": ["q8"]},
        {"run_seed": -1},
        {"run_seed": 1 << 64},
        {"shard_size": 96},
        {"shard_size": 32, "chunk_size": 32},
        {"chunk_size": 256},
        {"chunk_size": 48},
        {"inference": {"batch_size": 256}},
        {"inference": {"batch_size": 48}},
        {"teacher": {"score": float("nan")}},
        {"teacher": {"object": object()}},
        {"logz": 1},
    ],
    ids=str,
)
def test_bad_manifests_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(SMALL, **change)


def test_store_id_leaves_out_versions_and_capacity_and_nothing_else() -> None:
    assert replace(SMALL, versions={"x": "2"}, num_epochs=9).store_id == SMALL.store_id
    for name, value in {
        "run_seed": 8,
        "floor": 0.01,
        "mass": 0.9,
        "gain": 1e-3,
        "views_from": "0" * 64,
        "logz": True,
        "view": {},
        "teacher": {},
        "dataset": {},
        "inference": {},
        "shard_size": 256,
        "chunk_size": 128,
        "topk": 4,
        "num_samples": 299,
        "codec": StandardCodec(level=3),
    }.items():
        assert replace(SMALL, **{name: value}).store_id != SMALL.store_id, name


def test_store_id_does_not_depend_on_the_python_types_of_its_values() -> None:
    other = replace(SMALL, view={"size": np.int64(32), "name": "crop_flip"}, floor=np.float64(0.001))
    assert other.store_id == SMALL.store_id
    assert replace(SMALL, floor=0).store_id == replace(SMALL, floor=0.0).store_id
    assert replace(SMALL, mass=1, gain=0).store_id == SMALL.store_id


def test_a_manifest_is_silent_on_what_stores_did_not_have_at_first() -> None:
    assert not {"mass", "gain", "views_from"} & SMALL.to_dict().keys()
    with pytest.raises(FormatError, match="leaving it out"):
        Manifest.from_dict({**SMALL.to_dict(), "views_from": None})
    with pytest.raises(FormatError, match="cannot have"):
        Manifest.from_dict({**SMALL.to_dict(), "views_from": 7})
    with pytest.raises(FormatError, match="leaving it out"):
        Manifest.from_dict({**SMALL.to_dict(), "mass": 1.0})
    with pytest.raises(FormatError, match="leaving it out"):
        Manifest.from_dict({**SMALL.to_dict(), "gain": 0.0})
    with pytest.raises(FormatError, match="cannot have"):
        Manifest.from_dict({**SMALL.to_dict(), "mass": "all"})


@pytest.mark.parametrize(
    "manifest",
    [SMALL, COARSE, DENSE, replace(SMALL, mass=0.95), replace(SMALL, gain=1e-3), replace(SMALL, views_from="0" * 64)],
    ids=["q8", "q4", "f16", "mass", "gain", "views"],
)
def test_manifest_survives_json(manifest: Manifest) -> None:
    again = Manifest.from_dict(json.loads(canonical_json(manifest.to_dict())))
    assert again == manifest
    assert again.store_id == manifest.store_id


def test_mismatch_shows_the_first_differing_fields_side_by_side() -> None:
    present = replace(SMALL, run_seed=8, view={"name": "crop_flip", "size": 64}, dataset={"count": 300})
    with pytest.raises(MismatchError) as caught:
        SMALL.require_same(present, where="runs/a")
    message = str(caught.value)
    assert "runs/a" in message and "run_seed, dataset.fingerprint, dataset.class_names, view.size" in message
    assert "run_seed = 7" in message and "run_seed = 8" in message and "dataset.fingerprint = absent" in message


def _group(manifest: Manifest = SMALL) -> dict[str, Any]:
    return dict(json.loads(metadata_documents(manifest)["zarr.json"]))


def test_another_format_version_has_its_own_message() -> None:
    group = _group()
    group["attributes"]["logitstore"]["format_version"] = 2
    with pytest.raises(FormatError, match="format version 2; this logitstore reads version 1"):
        read_manifest(group, where="s")


def test_an_altered_manifest_is_damage() -> None:
    group = _group()
    group["attributes"]["logitstore"]["run_seed"] = 8
    with pytest.raises(DamagedError, match=r"manifest in s/zarr\.json was altered"):
        read_manifest(group, where="s")


@pytest.mark.parametrize("change", [{"codec": {"name": "rank"}}, {"surprise": 1}, {"topk": 99}], ids=str)
def test_a_sealed_manifest_of_unknown_content_is_refused(change: dict[str, Any]) -> None:
    group = _group()
    group["attributes"]["logitstore"] = seal({**group["attributes"]["logitstore"], **change})
    with pytest.raises(FormatError):
        read_manifest(group, where="s")


def test_another_group_is_no_store() -> None:
    with pytest.raises(FormatError, match="not a logitstore"):
        read_manifest({"zarr_format": 3, "node_type": "group", "attributes": {}}, where="s")


def test_documents_end_with_the_group() -> None:
    assert list(metadata_documents(SMALL))[-1] == "zarr.json"


def test_growth_changes_extents_only() -> None:
    before, after = (metadata_documents(replace(SMALL, num_epochs=e)) for e in (2, 5))
    assert before["commits/zarr.json"] == after["commits/zarr.json"]
    for name in array_layouts(SMALL):
        old, new = (json.loads(d[f"{name}/zarr.json"]) for d in (before, after))
        assert (old.pop("shape")[0], new.pop("shape")[0]) == (2, 5) and old == new
    old, new = (json.loads(d["zarr.json"])["attributes"]["logitstore"] for d in (before, after))
    assert old["arrays"] == new["arrays"]


def test_canonical_json() -> None:
    value = {"b": [1, 0.001, 1e-5, True, None], "a": {"é": "x\n"}}
    assert canonical_json(value) == '{"a":{"é":"x\\n"},"b":[1,0.001,1e-05,true,null]}'.encode()
    with pytest.raises(ValueError):
        canonical_json(float("inf"))


def test_crc32c_is_castagnoli() -> None:
    assert crc32c_hex(b"123456789") == "e3069283"  # the check value of CRC-32C


def test_a_seal_covers_all_but_the_excluded() -> None:
    sealed = seal({"a": 1, "info": 2}, exclude=("info",))
    assert is_intact({**sealed, "info": 3}, exclude=("info",))
    assert not is_intact({**sealed, "a": 2}, exclude=("info",))


@pytest.mark.parametrize("name", CODECS)
class TestEveryCodec:
    """The contract of codecs."""

    def test_configuration_goes_through_json(self, name: str) -> None:
        codec = EXAMPLES[name]
        assert type(codec) is CODECS[name]
        assert codec.name == name
        assert codec_from_dict(json.loads(json.dumps(codec.to_dict()))) == codec

    def test_unknown_fields_are_refused(self, name: str) -> None:
        with pytest.raises(FormatError, match="surprise"):
            codec_from_dict({**EXAMPLES[name].to_dict(), "surprise": 1})

    @pytest.mark.parametrize("manifest", [SMALL, DENSE], ids=["q8", "f16"])
    @pytest.mark.parametrize(("samples", "size"), [(1, 64), (63, 64), (64, 64), (65, 128), (300, 128), (300, 512)])
    def test_round_trip(self, name: str, manifest: Manifest, samples: int, size: int) -> None:
        odd = replace(manifest, num_samples=samples, shard_size=size, codec=EXAMPLES[name])
        coder = ShardCoder(odd)
        for shard in range(odd.num_shards):
            arrays = _stored_arrays(odd, 0, shard)
            stored = coder.encode(0, shard, arrays)
            for array, data in stored.items():
                assert _same(coder.decode(array, 0, shard, data), arrays[array])

    @pytest.mark.parametrize("content", ["padding", "zeros"])
    def test_uniform_shards_are_stored_all_the_same(self, name: str, content: str) -> None:
        manifest = replace(DENSE, codec=EXAMPLES[name])
        fill = {n: layout.fill if content == "padding" else 0 for n, layout in array_layouts(manifest).items()}
        arrays = {n: np.full_like(a, fill[n]) for n, a in _stored_arrays(manifest, 0, 0).items()}
        coder = ShardCoder(manifest)
        for array, data in coder.encode(0, 0, arrays).items():
            assert data and _same(coder.decode(array, 0, 0, data), arrays[array])

    def test_many_ranks(self, name: str) -> None:
        manifest = replace(SMALL, num_classes=100_000, topk=100, codec=EXAMPLES[name])
        assert manifest.index_dtype == np.uint32
        arrays = _stored_arrays(manifest, 0, 2)
        coder = ShardCoder(manifest)
        assert all(_same(coder.decode(n, 0, 2, d), arrays[n]) for n, d in coder.encode(0, 2, arrays).items())


def _stored_arrays(manifest: Manifest, epoch: int, shard: int) -> dict[str, NDArray[Any]]:
    """What a form makes of a shard that needs no other one."""
    documents = {
        name: canonical_json(layout.document(manifest.num_epochs, manifest.codec))
        for name, layout in array_layouts(manifest).items()
    }
    store = Store(LocalObjects("nowhere", scratch="commits"), manifest, documents)
    return store.form.arrays(epoch, shard, make_block(manifest, epoch, shard))


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


@pytest.mark.parametrize(
    ("array", "change"),
    [("seed", lambda a: a[:-1]), ("logp", lambda a: a.astype(np.float16)), ("index", lambda a: a[:, :-1])],
)
def test_a_block_of_another_shape_or_type_is_refused(array: str, change: Any) -> None:
    arrays = make_block(SMALL, 0, 0).arrays()
    with pytest.raises(InputError, match=f"of {array} "):
        ShardCoder(SMALL).encode(0, 0, {**arrays, array: change(arrays[array])})


def test_a_block_without_logz_is_refused_where_it_is_kept() -> None:
    arrays = make_block(DENSE, 0, 0).arrays()
    del arrays["logz"]
    with pytest.raises(InputError, match="arrays"):
        ShardCoder(DENSE).encode(0, 0, arrays)


def test_index_width_follows_the_classes() -> None:
    assert replace(SMALL, num_classes=65_535).index_dtype == np.uint16
    assert replace(SMALL, num_classes=65_536).index_dtype == np.uint32


def test_levels_outside_blosc_are_refused() -> None:
    with pytest.raises(InputError):
        StandardCodec(level=10)
