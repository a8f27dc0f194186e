"""Models that the tests of contraction share."""

from __future__ import annotations

from students.contract import Factors, published_factors

SMALL = Factors(
    widths=(32, 64, 64, 128), depths=(1, 1, 3, 1), windows=(4, 2, 1), mbconv_ratio=2, mlp_ratio=2, head_dim=32
)


def factors_of(name: str, size: int = 224) -> Factors:
    found = published_factors(f"tiny_vit_{name}", size)
    assert found is not None
    return found
