"""On a GPU, where there is one, everything does what it does on the CPU."""

from __future__ import annotations

import pytest
from gpu_cases import has_gpu, run_file


@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
def test_a_gpu_does_what_the_cpu_does() -> None:
    run_file("on_gpu.py", {}, gpus=True)
