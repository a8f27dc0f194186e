"""How a dump is cut into parts, and how its stages overlap within one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dump_cases import CLASSES, config, snapshot

from logitstore.dump import dump, producer
from logitstore.dump.assembly import Assembly, Part
from logitstore.dump.producer import Producer
from logitstore.dump.share import Share, in_turn
from logitstore.errors import InputError, ModelError, NonFiniteError
from logitstore.launch import Launch
from logitstore.progress import Progress
from logitstore.store import Manifest, Store, create_store, open_store


class TestParts:
    @pytest.mark.parametrize("parts", [1, 2, 3, 7, 30])
    def test_every_shard_is_in_exactly_one(self, parts: int) -> None:
        shards = [Share.parse(f"{part}/{parts}").shards(range(2, 5), 4) for part in range(parts)]
        assert sorted(chain(*shards)) == [(epoch, shard) for epoch in range(2, 5) for shard in range(4)]
        assert max(map(len, shards)) - min(map(len, shards)) <= 1

    def test_numbers_count_over_all_epochs(self) -> None:
        assert Share.parse("1/2").shards(range(3), 3) == [(0, 1), (1, 0), (1, 2), (2, 1)]
        assert Share.parse("1/2").shards(range(1, 2), 3) == [(1, 0), (1, 2)]  # whichever epochs are asked for

    @pytest.mark.parametrize("text", ["", "1", "1/", "/2", "2/2", "-1/2", "0/0", "a/b", "0/1/2", "1.0/2"])
    def test_what_is_no_part_is_refused(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"--shards is I/N with 0 <= I < N"):
            config(tmp_path, shards=text)

    @pytest.mark.parametrize("world", [1, 2, 3, 4])
    def test_processes_begin_apart_and_try_everything(self, world: int) -> None:
        shards = Share().shards(range(2), 5)
        turns = [in_turn(shards, Launch(rank=rank, world=world, local_world=world)) for rank in range(world)]
        assert [turn[0] for turn in turns] == shards[:world]
        assert all(sorted(turn) == shards for turn in turns)

    def test_a_part_is_made_and_any_later_run_makes_the_rest(self, tmp_path: Path) -> None:
        first = dump(config(tmp_path, "parts", shards="1/3"))
        assert (first.shards, first.complete, first.in_progress) == (3, False, ())
        assert open_store(tmp_path / "parts").committed() == {(0, 1), (0, 4), (1, 2)}
        assert dump(config(tmp_path, "parts", shards="1/3")).shards == 0
        last = dump(config(tmp_path, "parts"))
        assert (last.shards, last.complete) == (7, True)
        dump(config(tmp_path))
        assert snapshot(tmp_path / "parts") == snapshot(tmp_path / "store")


class TestOverlap:
    def test_the_next_shard_begins_before_the_present_one_ends(self, tmp_path: Path) -> None:
        asked: list[int] = []

        def ranges() -> Iterator[tuple[int, int, int]]:
            for shard in range(5):
                asked.append(shard)
                yield 0, *maker.manifest.shard_range(shard)

        maker = Producer(config(tmp_path, epochs=1), None)
        with maker.at_work():
            ends = [(s.shard[1], max(asked)) for s in maker.selections(ranges()) if s.ends_shard]
        assert ends == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]

    def test_few_batches_wait_to_be_encoded(self, tmp_path: Path) -> None:
        """A teacher that is faster than the encoder is held up, so memory stays bounded."""
        go_on, encoded, taken = threading.Event(), [], []

        def encode() -> Part:
            go_on.wait(60)
            encoded.append(None)
            return {}

        def feed(assembly: Assembly) -> None:
            for number in range(8):
                assembly.add(encode)
                taken.append(number)

        store = Producer(config(tmp_path, epochs=1), None).open_store(range(1))
        with Assembly(store, Progress(None, quiet=True)) as assembly:
            feeder = threading.Thread(target=feed, args=(assembly,))
            feeder.start()
            feeder.join(0.2)
            assert feeder.is_alive() and len(taken) <= 4 and not encoded
            go_on.set()
            feeder.join(60)
        assert len(taken) == len(encoded) == 8

    def test_a_failure_beside_the_teacher_is_raised_and_nothing_of_its_shard_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails_late(*arrays: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == 4:  # the last of the second shard
                raise NonFiniteError("No.")
            return encode(*arrays, **options)

        calls: list[None] = []
        encode = producer.encode_records
        monkeypatch.setattr(producer, "encode_records", fails_late)
        with pytest.raises(NonFiniteError):
            dump(config(tmp_path, epochs=1))
        committed = open_store(tmp_path / "store").committed()
        assert (0, 0) in committed and (0, 1) not in committed
        assert not list(tmp_path.rglob("*.claim*"))

    def test_no_thread_is_left(self, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        dump(config(tmp_path, epochs=1, workers=3))
        assert not [thread for thread in set(threading.enumerate()) - before if "logitstore" in thread.name]


def test_a_store_begun_meanwhile_with_other_threads_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads() + 1

    def slow(path: Path, manifest: Manifest) -> Store:
        if not path.exists():  # another process is faster
            create_store(path, replace(manifest, inference={**manifest.inference, "threads": threads}))
        return create_store(path, manifest)

    monkeypatch.setattr(producer, "create_store", slow)
    assert dump(config(tmp_path)).complete
    assert open_store(tmp_path / "store").manifest.inference["threads"] == threads


class TestCompiled:
    def test_it_makes_another_store(self, tmp_path: Path) -> None:
        plain, compiled = (Producer(config(tmp_path, compile=on), None).manifest for on in (False, True))
        assert "compile" not in plain.inference  # stores that were made without know nothing of it
        assert compiled.inference["compile"] is True
        assert plain.store_id != compiled.store_id

    @pytest.mark.slow
    def test_records_are_the_same_but_for_rounding(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"epochs": 1, "subset": 64, "topk": CLASSES, "floor": 0.0, "values": "f16"}
        for name, compiled in (("plain", False), ("compiled", True)):
            assert dump(config(tmp_path, name, compile=compiled, **options)).complete
        plain, compiled_records = (open_store(tmp_path / name).read(0, 0, 64) for name in ("plain", "compiled"))
        assert np.array_equal(plain.seed, compiled_records.seed)
        assert np.allclose(np.sort(plain.prob, 1), np.sort(compiled_records.prob, 1), atol=1e-3)

    def test_without_a_compiler_it_is_refused_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # nothing compiled earlier counts
        monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/such/compiler",))
        torch.compiler.reset()
        with pytest.raises(ModelError, match=r"compiler.*leave out --compile"):
            dump(config(tmp_path, compile=True))
        assert not (tmp_path / "store").exists()
