"""The names under which a batch's targets go to other libraries, and what they are called at home."""

from __future__ import annotations

from torch import Tensor

from logitstore.learning.criterion import Targets

_FIELDS = {
    "weight": "weight_B",
    "labels": "label_B",
    "partner_labels": "partner_label_B",
    "own": "own_B",
    "index": "index_BK",
    "prob": "prob_BK",
    "tail": "tail_B",
    "logits": "teacher_BC",
}


def as_columns(targets: Targets) -> dict[str, Tensor]:
    """The targets that there are, by name; classes as int64, which torch indexes with."""
    present = {name: getattr(targets, field) for name, field in _FIELDS.items()}
    columns = {name: tensor for name, tensor in present.items() if tensor is not None}
    return columns | ({"index": columns["index"].long()} if "index" in columns else {})


def as_targets(columns: dict[str, Tensor]) -> Targets:
    """Back from a batch, which may have other columns, too."""
    return Targets(**{field: columns[name] for name, field in _FIELDS.items() if name in columns})
