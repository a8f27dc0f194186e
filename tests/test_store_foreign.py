"""Readers that know nothing of logitstore: plain zarr, xarray, tensorstore. Warnings are errors here as everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from logitstore.store import Manifest, open_store
from logitstore.store.layout import array_layouts
from tests.store_cases import COARSE, DENSE, SMALL, make_block, masses, write_store


@pytest.fixture(
    scope="module", params=[SMALL, COARSE, replace(COARSE, values="q2"), DENSE], ids=lambda manifest: manifest.values
)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("stores") / "s", request.param).path


def manifest_of(path: Path) -> Manifest:
    return open_store(path).manifest


def expected(manifest: Manifest, name: str) -> np.ndarray:
    """The whole of one array."""
    return np.stack(
        [
            np.concatenate([make_block(manifest, e, s).arrays()[name] for s in range(manifest.num_shards)])
            for e in range(manifest.num_epochs)
        ]
    )


def test_zarr_reads_every_array(path: Path) -> None:
    manifest = manifest_of(path)
    group = zarr.open_group(path, mode="r")
    assert sorted(group.array_keys()) == sorted(array_layouts(manifest))
    for name, layout in array_layouts(manifest).items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == layout.dtype and array.metadata.dimension_names == layout.dimensions
        assert np.array_equal(array[:], expected(manifest, name), equal_nan=array.dtype.kind == "f")


def test_zarr_sees_an_empty_group_of_commits(path: Path) -> None:
    group = zarr.open_group(path, mode="r")
    assert list(group.group_keys()) == ["commits"]
    commits = group["commits"]
    assert isinstance(commits, zarr.Group) and list(commits.members()) == []


def test_zarr_needs_no_consolidated_metadata(path: Path) -> None:
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    assert sorted(name for name, _ in group.members()) == sorted(["commits", *array_layouts(manifest_of(path))])


def test_the_manifest_is_an_attribute(path: Path) -> None:
    attributes = zarr.open_group(path, mode="r").attrs["logitstore"]
    assert isinstance(attributes, dict)
    assert attributes["num_samples"] == 300 and attributes["view"] == {"name": "crop_flip", "size": 32}


def test_consolidated_metadata_is_what_the_arrays_say(path: Path) -> None:
    with_copy = zarr.open_group(path, mode="r")
    without = zarr.open_group(path, mode="r", use_consolidated=False)
    for name in array_layouts(manifest_of(path)):
        assert repr(with_copy[name].metadata) == repr(without[name].metadata)  # NaN differs from itself


def test_xarray_decodes_log_probabilities(path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    manifest = manifest_of(path)
    with xarray.open_zarr(path, chunks=None) as dataset:
        assert dataset.sizes["epoch"] == 2 and dataset.sizes["position"] == 300 and dataset.sizes["block"] == 5
        for name in ("logp", "tail"):
            stored = expected(manifest, name)
            found = dataset[name].values
            padding = np.isnan(stored) if manifest.values == "f16" else stored == 255
            assert np.array_equal(np.isnan(found), padding)
            assert np.allclose(np.exp(found[~padding]), masses(stored[~padding], manifest.values), rtol=1e-3)
        index = dataset["index"].values
        assert index.dtype == np.uint16 and np.array_equal(index, expected(manifest, "index"))
        assert dataset["seed"].dtype == np.uint32
        assert dataset["logp"].dims == ("epoch", "position", "rank") and dataset["witness"].dims == ("epoch", "block")


def test_xarray_opens_the_tree(path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    with xarray.open_datatree(path, engine="zarr", chunks=None) as tree:
        assert list(tree.children) == ["commits"]


def test_tensorstore_reads_every_array(path: Path) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    manifest = manifest_of(path)
    for name in array_layouts(manifest):
        kvstore = {"driver": "file", "path": f"{path / name}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()
        found = array.read().result()
        assert np.array_equal(found, expected(manifest, name), equal_nan=found.dtype.kind == "f")
        assert array.domain.labels == array_layouts(manifest)[name].dimensions


def test_a_flipped_bit_is_seen_by_plain_zarr_too(tmp_path: Path) -> None:
    """The chunks carry checksums of their own, so that readers without our commits are protected."""
    path = write_store(tmp_path / "s").path
    for key in ("index/c/0/0/0", "logp/c/0/0/0", "tail/c/0/0", "seed/c/0/0", "witness/c/0/0"):
        file = path / key
        data = bytearray(file.read_bytes())
        data[15] ^= 1
        file.write_bytes(data)
        with pytest.raises(RuntimeError, match="checksum"):
            zarr.open_group(path, mode="r")[key.split("/")[0]][0, :64]
