"""``audit``: planted wrong labels are found, counts agree with a plain reference, and lists lead to ``--exclude``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_cases import COUNT, labelled_images, made_up_store, planted_digits, planted_store
from click.testing import CliRunner
from helpers import write_images
from numpy.typing import NDArray
from PIL import Image
from train_cases import config

import cli
from logitstore.errors import DataError, IncompleteError, InputError, MismatchError
from logitstore.images import open_images
from logitstore.loader import ViewLoader, read_exclusion
from logitstore.report.audit import AuditConfig, AuditResult, audit
from logitstore.report.hard_samples import opinions, tally
from logitstore.store import Store
from logitstore.train import train
from logitstore.views import ViewSpec

PLAIN = ViewSpec(size=8)
MIXED = replace(PLAIN, mixup=0.8, cutmix=1.0, mix_prob=0.9)
SAMPLES, CLASSES = 131, 7


# -- wrong labels that were planted in a real store


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, set[int]]:
    """A store of digits, the data set with wrong labels, and the samples that have them."""
    folder = tmp_path_factory.mktemp("planted")
    data, wrong = planted_digits(folder / "digits.npz")
    return planted_store(folder, data), data, set(wrong)


def samples_of(report: str | Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(Path(report).read_text())["samples"]
    return rows


def test_planted_labels_are_found(planted: tuple[Path, str, set[int]], tmp_path: Path) -> None:
    store, data, wrong = planted
    result = audit(AuditConfig(store=str(store), data=data, out=str(tmp_path), top=1, worst=12))
    found = {row["sample"] for row in samples_of(result.report)}
    assert len(found & wrong) >= 0.9 * len(wrong), "recall"
    assert len(found & wrong) >= 0.9 * len(found), "precision"
    assert (result.hard, result.judged, result.views) == (len(found), COUNT, 4 * COUNT)
    assert result.share == len(found) / COUNT
    right = open_images("digits").subset(COUNT)
    images = open_images(data)
    assert right.labels is not None and images.labels is not None
    for row in result.worst:
        assert row["name"] == images.image_name(row["sample"])
        assert row["label"] == f"digit {images.labels[row['sample']]}"
        assert row["teacher_says"] == f"digit {right.labels[row['sample']]}"
        assert row["teacher_prob"] > row["label_prob"]
    assert sum(row["hard"] for row in json.loads(Path(result.report).read_text())["classes"]) == result.hard


def test_with_the_papers_rule_fewer_are_found_and_hardly_a_right_one(
    planted: tuple[Path, str, set[int]], tmp_path: Path
) -> None:
    """Of ten classes the first five hold half of the wrong labels by chance."""
    store, data, wrong = planted
    result = audit(AuditConfig(store=str(store), data=data, out=str(tmp_path), worst=1))
    found = {row["sample"] for row in samples_of(result.report)}
    assert 0.25 * len(wrong) <= len(found & wrong)
    assert len(found & wrong) >= 0.9 * len(found)


def test_audit_and_train_from_the_command_line(planted: tuple[Path, str, set[int]], tmp_path: Path) -> None:
    store, data, _ = planted
    arguments = ["audit", store, "--data", data, "--top", 1, "--out", tmp_path / "audit", "--worst", 7]
    said = CliRunner().invoke(cli.main, [*map(str, arguments), "--json"])
    assert said.exit_code == 0, said.stderr
    report = json.loads(said.stdout)
    assert {"report", "sheet", "hard", "share", "judged", "records_per_second", "classes", "worst"} <= report.keys()
    assert len(report["worst"]) == 7
    with Image.open(report["sheet"]) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    text = CliRunner().invoke(cli.main, list(map(str, arguments))).stdout
    assert "teacher_says" in text and report["worst"][0]["name"] in text

    excluded = read_exclusion(report["report"], open_images(data))
    assert excluded.sample.tolist() == sorted(row["sample"] for row in samples_of(report["report"]))
    for name, options in (("store", {"store": str(store)}), ("labels", {"hard_labels_only": True, "size": 32})):
        result = train(config(tmp_path / name, data=data, exclude=report["report"], epochs=1, **options))
        assert result.loss is not None and np.isfinite(result.loss)
        saved = json.loads(Path(result.checkpoint).with_suffix(".json").read_text())
        assert saved["training"]["exclude"] == {"count": report["hard"], "sha256": excluded.sha256}


# -- counts against a plain reference


@pytest.fixture(scope="module", params=[PLAIN, MIXED], ids=["plain", "mixed"])
def made_up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    folder = tmp_path_factory.mktemp("made_up")
    data = labelled_images(folder / "data.npz", np.random.default_rng(4).integers(0, CLASSES, SAMPLES))
    return made_up_store(folder / "store", open_images(data), request.param), data


def reference(store: Store, data: str, top: int) -> dict[str, NDArray[Any]]:
    """Record by record; the own weights come from rendered views."""
    images = open_images(data)
    assert images.labels is not None
    views, outside = np.zeros(SAMPLES, np.int64), np.zeros(SAMPLES, np.int64)
    label_prob, mean, firsts = np.zeros(SAMPLES), np.zeros((SAMPLES, CLASSES)), np.zeros((SAMPLES, CLASSES))
    spec = ViewSpec.from_dict(store.manifest.view)
    loader = ViewLoader(images, spec, store=store, batch_size=32, workers=0, check_witnesses=False)
    for epoch in range(2):
        for batch in loader.batches(epoch):
            assert batch.records is not None
            for row, sample in enumerate(batch.sample_B.tolist()):
                kept = int(batch.records.kept[row])
                if kept == 0 or batch.own_B[row] <= 0.5:
                    continue
                classes = batch.records.index[row, :kept].tolist()
                prob = np.full(CLASSES, float(batch.records.tail[row]) / (CLASSES - kept))
                prob[classes] = batch.records.prob[row, :kept]
                views[sample] += 1
                outside[sample] += int(images.labels[sample]) not in classes[:top]
                label_prob[sample] += prob[images.labels[sample]]
                mean[sample] += prob
                firsts[sample, classes[0]] += 1
    return {"views": views, "outside": outside, "label_prob": label_prob, "mean": mean, "firsts": firsts}


@pytest.mark.parametrize("top", [1, 3, 5])
def test_counts_agree_with_a_plain_reference(made_up: tuple[Store, str], top: int) -> None:
    store, data = made_up
    labels = open_images(data).require_labels("to test")
    expected = reference(store, data, top)
    advanced: list[int] = []
    counts = tally(store, labels, epochs=[0, 1], top=top, advance=advanced.append)
    assert sum(advanced) == 2 * SAMPLES
    assert np.array_equal(counts.views_N, expected["views"])
    assert np.array_equal(counts.outside_N, expected["outside"])
    np.testing.assert_allclose(counts.label_prob_N, expected["label_prob"], rtol=1e-6)
    assert len(set(counts.views_N.tolist())) > 1, "some views do not count"

    chosen = np.flatnonzero(expected["views"])[[40, 3, 77]]
    said = opinions(store, chosen, epochs=[0, 1])
    times = expected["views"][chosen, None]
    np.testing.assert_allclose(said.prob_MC, expected["mean"][chosen] / times, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(said.first_MC, expected["firsts"][chosen] / times)
    np.testing.assert_allclose(said.prob_MC.sum(1), 1, atol=1e-5)


def test_ranking_and_threshold(made_up: tuple[Store, str], tmp_path: Path) -> None:
    store, data = made_up
    expected = reference(store, data, 2)
    share = expected["outside"] / np.maximum(expected["views"], 1)
    for threshold in (0.0, 0.5):
        result = audited(store, data, tmp_path, top=2, threshold=threshold, worst=5)
        rows = samples_of(result.report)
        assert {row["sample"] for row in rows} == set(np.flatnonzero(share > threshold).tolist())
        keys = [(-row["outside"], row["label_prob"], row["sample"]) for row in rows]
        assert keys == sorted(keys)
        assert [row["sample"] for row in result.worst] == [row["sample"] for row in rows[:5]]
        assert result.judged == (expected["views"] > 0).sum()


def audited(store: Store, data: str, out: Path, **options: Any) -> AuditResult:
    return audit(AuditConfig(store=str(store.path), data=data, out=str(out), **{"worst": 2, **options}))


def test_a_label_that_was_not_kept_is_outside(tmp_path: Path) -> None:
    """Also where fewer classes than five were kept, and where its share of the tail is the largest of all."""
    data = labelled_images(tmp_path / "data.npz", np.zeros(64, np.int64))
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN, topk=5, epochs=1)
    records = store.read(0, 0, 64)
    counts = tally(store, np.zeros(64, np.int64), epochs=[0], top=5)
    unkept = (records.kept > 0) & ~(records.index == 0).any(1)
    assert ((records.kept < 5) & unkept).any()
    assert np.array_equal(counts.outside_N[records.sample], unkept)


def test_only_complete_epochs_are_judged(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data.npz", np.arange(SAMPLES) % CLASSES)
    images = open_images(data)
    store = made_up_store(tmp_path / "store", images, PLAIN, shards=[3, 2])
    result = audited(store, data, tmp_path / "out")
    assert (result.epochs, result.records) == (1, SAMPLES)
    assert json.loads(Path(result.report).read_text())["epochs"] == [0]
    none = made_up_store(tmp_path / "none", images, PLAIN, shards=[2, 2])
    with pytest.raises(IncompleteError, match="has no complete epoch"):
        audited(none, data, tmp_path / "out")


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    names = [f"class {c}" for c in range(CLASSES)]
    order = np.random.default_rng(6).permutation(CLASSES)  # the teacher's number of each class of the data
    teacher = [names[list(order).index(number)] for number in range(CLASSES)]
    labels = np.random.default_rng(4).integers(0, CLASSES, SAMPLES)
    data = labelled_images(tmp_path / "data.npz", labels, names=names)
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN, teacher_names=teacher)
    result = audited(store, data, tmp_path / "out", top=2, worst=3)
    counts = tally(store, order[labels], epochs=[0, 1], top=2)
    share = counts.outside_N / np.maximum(counts.views_N, 1)
    assert {row["sample"] for row in samples_of(result.report)} == set(np.flatnonzero(share > 0.5).tolist())
    assert all(row["label"] == names[labels[row["sample"]]] for row in result.worst)


def test_classes_without_names_are_numbers_and_large_images_are_drawn_small(tmp_path: Path) -> None:
    """The data set knows names of a few classes only, and the teacher of none."""
    names = ["a $x", "b$", "c"]
    for number in range(66):
        write_images(tmp_path / "images" / names[number % 3], [f"{number}.png"], size=(300, 20) if number else (9, 900))
    data = str(tmp_path / "images")
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN)
    result = audited(store, data, tmp_path, top=1, worst=20)
    assert result.sheet is not None
    assert {row["label"] for row in result.worst} == {"0", "1", "2"}
    assert {row["teacher_says"] for row in result.worst} <= set(map(str, range(CLASSES)))
    assert len({row["teacher_says"] for row in result.worst}) > 3


# -- what is refused, and what is left out


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data.npz", None, count=70)
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN)
    with pytest.raises(DataError, match="has no labels to compare with what the teacher said"):
        audited(store, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_data_set_is_refused(made_up: tuple[Store, str], tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"a/{number}.png" for number in range(SAMPLES)])
    with pytest.raises(MismatchError, match="fingerprint"):
        audited(made_up[0], str(tmp_path / "images"), tmp_path / "out")


def test_a_store_that_keeps_too_few_classes_is_refused(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data.npz", np.arange(64) % CLASSES)
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN, topk=4, epochs=1)
    with pytest.raises(InputError, match=r"keeps 4 classes.*--top 4, or dump with --topk 5"):
        audited(store, data, tmp_path / "out")
    assert audited(store, data, tmp_path / "out", top=4).judged > 0


def test_a_rule_that_nothing_can_break_is_refused(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data.npz", np.arange(64) % 5)
    store = made_up_store(tmp_path / "store", open_images(data), PLAIN, classes=5, topk=5, epochs=1)
    with pytest.raises(InputError, match="With 5 classes every label is among the first 5"):
        audited(store, data, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "match"),
    [({"top": 0}, "--top must be at least 1"), ({"worst": 0}, "--worst"), ({"threshold": 1.0}, r"lie in \[0, 1\)")],
)
def test_values_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        AuditConfig(store="unused", **options)


def test_where_nothing_is_hard_the_list_is_empty_and_usable(tmp_path: Path) -> None:
    data = labelled_images(tmp_path / "data.npz", np.arange(64) % CLASSES)
    (tmp_path / "audit.png").write_bytes(b"of an earlier audit")
    # Records that are made up do not depend on the labels, so these can be what the records say.
    said = first_classes(made_up_store(tmp_path / "store", open_images(data), PLAIN, epochs=1))
    easy = labelled_images(tmp_path / "easy.npz", said)
    store = made_up_store(tmp_path / "easy", open_images(easy), PLAIN, epochs=1)
    result = audited(store, easy, tmp_path, top=1)
    assert (result.hard, result.share, result.sheet, result.worst, result.classes) == (0, 0.0, None, [], [])
    assert not (tmp_path / "audit.png").exists()
    assert len(read_exclusion(result.report, open_images(easy))) == 0


def first_classes(store: Store) -> NDArray[np.int64]:
    """The teacher's first class of each sample in epoch 0; 0 for a skipped one."""
    records = store.read(0, 0, store.num_samples)
    labels = np.zeros(store.num_samples, np.int64)
    labels[records.sample] = np.where(records.kept > 0, records.index[:, 0], 0)
    return labels


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_there_is_a_report_and_no_sheet(made_up: tuple[Store, str], tmp_path: Path) -> None:
    result = audited(*made_up, tmp_path, top=2)
    assert result.sheet is None and result.hard > 0
    assert Path(result.report).is_file()
