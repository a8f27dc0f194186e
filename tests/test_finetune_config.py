"""Settings of ``finetune``: what is refused, and defaults that follow from the rest."""

from __future__ import annotations

from typing import Any

import pytest

from logitstore.errors import InputError
from logitstore.finetune import FinetuneConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "mod:function"}, "is a function"),
        ({"freeze_backbone": True}, "--freeze-backbone"),
        ({"checkpoint": "x", "pretrained": True}, "leave one out"),
        ({"epochs": 0}, "--epochs"),
        ({"lr": 0.0}, "--lr"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"weight_decay": -1.0}, "--weight-decay"),
    ],
)
def test_settings_are_validated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FinetuneConfig(**{"teacher": "test_vit", **changes})


def test_defaults_follow_the_data_and_the_start() -> None:
    digits, real = FinetuneConfig(teacher="swin_t"), FinetuneConfig(teacher="swin_t", data="pets")
    assert (digits.uses_tag, digits.num_epochs, digits.rate) == (False, 12, 5e-4)
    assert (real.uses_tag, real.num_epochs, real.rate) == (True, 30, 1e-4)
    assert FinetuneConfig(teacher="swin_t", data="pets", freeze_backbone=True).rate == 1e-3
