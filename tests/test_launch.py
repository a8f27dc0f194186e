"""What a process makes of the variables that torchrun sets."""

from __future__ import annotations

import pytest

from logitstore.errors import InputError
from logitstore.launch import Launch


def test_without_variables_there_is_one_process() -> None:
    assert Launch.from_environment({}) == Launch(rank=0, world=1, local_rank=0, local_world=1)


def test_torchruns_variables_are_read() -> None:
    launch = Launch.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"})
    assert launch == Launch(rank=5, world=8, local_rank=1, local_world=4)
    assert not launch.is_main


def test_on_one_machine_local_numbers_may_be_absent() -> None:
    assert Launch.from_environment({"RANK": "1", "WORLD_SIZE": "2"}) == Launch(
        rank=1, world=2, local_rank=1, local_world=2
    )


@pytest.mark.parametrize(
    ("rank", "world", "words"), [("2", "2", "contradict"), ("-1", "2", "whole"), ("a", "2", "whole")]
)
def test_what_makes_no_sense_is_refused(rank: str, world: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Launch.from_environment({"RANK": rank, "WORLD_SIZE": world})
