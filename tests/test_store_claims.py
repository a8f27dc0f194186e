"""Claims: one holder, take-over from the dead and the silent, exactly one successor."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from logitstore.checksums import canonical_json
from logitstore.errors import ClaimLostError, DamagedError
from logitstore.store import Store, claim_shard, commit_shard, create_store, tidy, verify_store
from logitstore.store import claims as claims_module
from logitstore.store.claims import Claim, acquire, claim_key, read_chain
from logitstore.store.owner import Owner, this_process
from tests.store_cases import SMALL, content, killed_process, make_block, write_shards

KEY = claim_key(0, 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "s", SMALL)


@pytest.fixture(scope="module")
def dead() -> Owner:
    """A process of this host that was killed."""
    return killed_process()


def plant(store: Store, owner: Owner, *, token: str = "a" * 32, key: str = KEY) -> None:
    """A claim as another process would have left it."""
    assert store.objects.create(key, canonical_json({"token": token, **asdict(owner)}))


def files(store: Store) -> list[str]:
    return [name for name in store.objects.list("commits") if name != "zarr.json"]


def elsewhere() -> Owner:
    return Owner(host="another host/boot/pid:[1]", pid=1, started="1")


def test_a_held_claim_is_refused_to_others(store: Store) -> None:
    claim = claim_shard(store, 0, 0)
    assert claim is not None and claim.is_held() and (claim.epoch, claim.shard) == (0, 0)
    assert claim_shard(store, 0, 0) is None
    other = claim_shard(store, 0, 1)
    assert other is not None
    other.release()
    claim.release()
    assert files(store) == []
    with pytest.raises(ClaimLostError):
        claim.check()
    again = claim_shard(store, 0, 0)
    assert again is not None
    again.release()


def test_a_claim_is_given_back_when_work_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), claim_shard(store, 0, 0):  # type: ignore[union-attr]
        raise ZeroDivisionError
    assert files(store) == []


def test_a_claim_names_token_and_owner(store: Store) -> None:
    with acquire(store.objects, KEY) as claim:  # type: ignore[union-attr]
        document = json.loads(store.objects.get(KEY))
    assert document == {"token": claim.token, **asdict(this_process())}


def test_a_dead_holder_is_succeeded_at_once(store: Store, dead: Owner) -> None:
    plant(store, dead)
    claim = claim_shard(store, 0, 0)
    assert claim is not None and claim.is_held()
    assert claim_shard(store, 0, 0) is None
    commit_shard(store, claim, make_block(SMALL, 0, 0))
    assert files(store) == ["0000.00000.json"]


def test_a_reused_process_number_is_not_the_holder(store: Store) -> None:
    plant(store, replace(this_process(), started="1"))
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    claim.release()


def test_a_living_holder_on_this_host_is_left_alone(store: Store) -> None:
    plant(store, this_process())
    assert claim_shard(store, 0, 0) is None


def test_a_holder_on_another_host_is_left_alone_until_it_is_silent(store: Store) -> None:
    plant(store, elsewhere())
    assert claim_shard(store, 0, 0) is None
    path = store.path / KEY
    os.utime(path, (time.time() - 590, time.time() - 590))
    assert claim_shard(store, 0, 0) is None
    os.utime(path, (time.time() - 610, time.time() - 610))
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    claim.release()
    assert files(store) == []


def test_the_heartbeat_shows_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "HEARTBEAT_S", 0.01)
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    path = store.path / KEY
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 2
    claim.release()


def test_whoever_was_taken_over_stops_before_the_next_write(store: Store) -> None:
    first = acquire(store.objects, KEY, epoch=0, shard=0)
    assert first is not None
    second = acquire(store.objects, KEY, epoch=0, shard=0, silence_limit_s=-60)
    assert second is not None and second.is_held() and not first.is_held()
    before = content(store.path)
    with pytest.raises(ClaimLostError, match="took over"):
        commit_shard(store, first, make_block(SMALL, 0, 0))
    assert content(store.path) == before
    first.release()
    assert second.is_held(), "giving back a lost claim changes nothing for its successor"
    commit_shard(store, second, make_block(SMALL, 0, 0))
    assert files(store) == ["0000.00000.json"]


def test_a_claim_is_checked_before_every_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    calls = []
    check = claim.check
    monkeypatch.setattr(claim, "check", lambda: (calls.append(1), check())[1])
    commit_shard(store, claim, make_block(SMALL, 0, 0))
    assert len(calls) == 6  # five arrays and the commit


@pytest.mark.parametrize("lost_at", [1, 2, 6])
def test_a_claim_lost_midway_leaves_no_commit(store: Store, monkeypatch: pytest.MonkeyPatch, lost_at: int) -> None:
    first = acquire(store.objects, KEY, epoch=0, shard=0)
    assert first is not None
    check, calls, successors = first.check, [], []

    def lose() -> None:
        calls.append(1)
        if len(calls) == lost_at:
            successors.append(acquire(store.objects, KEY, epoch=0, shard=0, silence_limit_s=-60))
        check()

    monkeypatch.setattr(first, "check", lose)
    with pytest.raises(ClaimLostError):
        commit_shard(store, first, make_block(SMALL, 0, 0))
    first.release()
    assert not store.is_committed(0, 0)
    commit_shard(store, successors[0], make_block(SMALL, 0, 0))
    assert files(store) == ["0000.00000.json"]
    assert verify_store(store.path).records_checked == 128


def test_a_chain_of_dead_holders_is_followed_and_removed(store: Store, dead: Owner) -> None:
    tokens = [letter * 32 for letter in "abc"]
    for previous, token in zip([None, *tokens], tokens, strict=False):
        plant(store, dead, token=token, key=KEY if previous is None else f"{KEY}.{previous}")
    assert [link.token for link in read_chain(store.objects, KEY)] == tokens
    claim = claim_shard(store, 0, 0)
    assert claim is not None and len(read_chain(store.objects, KEY)) == 4
    claim.release()
    assert files(store) == []


def test_of_many_successors_one_wins(store: Store, dead: Owner) -> None:
    for _ in range(10):
        plant(store, dead)
        winners = _race(store, 8)
        assert len(winners) == 1 and winners[0].is_held()
        winners[0].release()
        assert files(store) == []


def test_of_many_claimants_one_wins(store: Store) -> None:
    for _ in range(10):
        winners = _race(store, 8)
        assert len(winners) == 1
        winners[0].release()


def test_while_claims_come_and_go_there_is_never_a_second_holder(store: Store, dead: Owner) -> None:
    """Threads claim, are "taken over" and release at random; nobody ever holds what another holds."""
    plant(store, dead)
    holding = threading.Lock()
    overlaps: list[str] = []
    taken = []

    def work() -> None:
        for _ in range(30):
            claim = acquire(store.objects, KEY)
            if claim is None:
                continue
            if not holding.acquire(blocking=False):
                overlaps.append(claim.token)
                continue
            taken.append(claim.token)
            held = claim.is_held()
            holding.release()
            if not held:
                overlaps.append(claim.token)
            claim.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken and not overlaps and files(store) == []


def test_a_successor_that_comes_while_the_claim_is_given_back_gets_nothing(
    store: Store, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, dead)
    holder = acquire(store.objects, KEY)
    assert holder is not None
    chain_before = read_chain(store.objects, KEY)[:1]  # what a successor saw before ``holder`` took over
    holder.release()
    seen = iter([chain_before])
    monkeypatch.setattr(claims_module, "read_chain", lambda objects, key: next(seen, None) or read_chain(objects, key))
    plant(store, dead, token="b" * 32)  # a new root, so that the exclusive create of the root fails
    assert acquire(store.objects, KEY) is None
    assert files(store) == [Path(KEY).name]


def test_tidy_removes_what_the_dead_left(store: Store, dead: Owner) -> None:
    write_shards(store, epochs=[0])
    plant(store, dead)
    plant(store, dead, token="b" * 32, key=f"{KEY}.{'a' * 32}")
    plant(store, dead, key="commits/manifest.claim")
    orphan = f"commits/tmp.{dead.host_digest}.{dead.pid}.{dead.started}.00"
    alive = f"commits/tmp.{this_process().host_digest}.{os.getpid()}.{this_process().started}.00"
    distant, foreign = "commits/tmp.00000000.1.1.00", "commits/tmp.backup"
    for key in (orphan, alive, distant, foreign):
        (store.path / key).write_bytes(b"half")
    tidy(store)
    expected = [f"0000.0000{i}.json" for i in range(3)]
    assert sorted(files(store)) == sorted([*expected, *(Path(key).name for key in (alive, distant, foreign))])
    os.utime(store.path / distant, (1, 1))
    tidy(store)
    assert sorted(files(store)) == sorted([*expected, Path(alive).name, Path(foreign).name])


def test_an_unreadable_claim_is_one_sentence(store: Store) -> None:
    (store.path / KEY).write_bytes(b"")
    with pytest.raises(DamagedError, match="delete it"):
        claim_shard(store, 0, 0)


def test_tidy_leaves_living_claims_alone(store: Store) -> None:
    with claim_shard(store, 0, 0) as claim:  # type: ignore[union-attr]
        tidy(store)
        assert claim.is_held()


def _race(store: Store, contenders: int) -> list[Claim]:
    barrier = threading.Barrier(contenders)
    won: list[Claim] = []

    def work() -> None:
        barrier.wait()
        claim = acquire(store.objects, KEY)
        if claim is not None:
            won.append(claim)

    threads = [threading.Thread(target=work) for _ in range(contenders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A heartbeat ends with its claim."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("claim ")]
    assert not left
