"""What a student can be trained on: all that a live teacher says, less and less of it, or labels.

TinyViT keeps 10 of ImageNet's 1,000 classes. With 100 classes, 10 would be nearly everything, so the same *mass* is
kept: K is the smallest number of classes that hold as much of the teacher's probability as 10 of 1,000 do, in the mean
over views. The floor is scaled in the same way. Both masses were measured on 8,000 random crops of 1,000 ImageNet
images, as MobileNetV2 sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

TINYVIT_MASS = 0.911
"""Mean probability of the first 10 of 1,000 classes."""
FLOORED_MASS = 0.961
"""Mean probability of the first 100 of 1,000 classes as far as they reach 1e-3, which are 22 in the mean."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a store is cut, where the numbers may follow from the teacher."""

    topk: int | None = None
    """K; None keeps all classes."""
    topk_mass: float | None = None
    """Instead: the smallest K whose mean mass reaches this."""
    floor: float = 0.0
    """Least probability of a class that is kept."""
    floor_mass: float | None = None
    """Instead: the largest floor whose mean mass reaches this."""
    values: str = "q8"
    """``q8`` or ``f16``."""
    cycled: bool = False
    """Keep only the first epochs of views."""

    @property
    def measures(self) -> bool:
        """Whether numbers follow from the teacher."""
        return self.topk_mass is not None or self.floor_mass is not None

    def words(self) -> tuple[str, ...]:
        """As options of the step that cuts."""
        named = {"topk": self.topk, "topk-mass": self.topk_mass, "floor": self.floor or None,
                 "floor-mass": self.floor_mass, "values": self.values}  # fmt: skip
        return tuple(word for name, value in named.items() if value is not None for word in (f"--{name}", str(value)))


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that a student can be trained on."""

    name: str
    """On the command line, in names of steps."""
    title: str
    """In the table."""
    rule: Rule | None = None
    """How its store is cut; None where it has no cut store of its own."""
    packed: str | None = None
    """Its store is that of this condition, packed."""
    compared: bool = False
    """Whether it is a point of the correlation: same views, same number of them, only what is kept differs."""


FLOORED = Rule(floor_mass=FLOORED_MASS)
CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition(name="live", title="live teacher"),
        Condition(name="dense", title="dense store, f16", compared=True),
        Condition(name="tinyvit", title=f"top K of mass {TINYVIT_MASS}, f16, as TinyViT keeps",
                  rule=Rule(topk_mass=TINYVIT_MASS, values="f16"), compared=True),
        Condition(name="floored", title=f"floor of mass {FLOORED_MASS}, q8", rule=FLOORED, compared=True),
        Condition(name="packed", title="the same, packed", packed="floored"),
        Condition(name="cycled", title="the same, fewer epochs, cycled",
                  rule=Rule(floor_mass=FLOORED_MASS, cycled=True)),
        Condition(name="labels", title="hard labels"),
        Condition(name="k1", title="K=1, q8", rule=Rule(topk=1), compared=True),
        Condition(name="k2", title="K=2, q8", rule=Rule(topk=2), compared=True),
        Condition(name="k5", title="K=5, q8", rule=Rule(topk=5), compared=True),
        Condition(name="floor0.3", title="floor 0.3, q8", rule=Rule(floor=0.3), compared=True),
        Condition(name="floor0.1", title="floor 0.1, q8", rule=Rule(floor=0.1), compared=True),
    )
}  # fmt: skip
"""By name, in the order of the table."""
