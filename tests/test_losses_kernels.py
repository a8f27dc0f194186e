"""The Triton kernels of the losses: interpreted on a CPU, compiled for GPUs that need not be here, run where one is.

In processes of their own: whether Triton interprets kernels or compiles them, it decides on its import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_cases import has_gpu, run_file

from logitstore.losses import one_pass

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux only")
TESTS = Path(__file__).parent


def test_interpreted_they_give_the_plain_forms_numbers() -> None:
    run_file("losses_on_kernels.py", {"TRITON_INTERPRET": "1"})


@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
def test_on_a_gpu_they_give_the_plain_forms_numbers() -> None:
    run_file("losses_on_kernels.py", {}, gpus=True)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from logitstore.losses import kernels

constants = {"WITH_GRADIENT": True, "WITH_ENTROPY": True, "BLOCK_C": kernels._TILE_C, "BLOCK_K": kernels._TILE_K}
numbers = dict.fromkeys(("num_classes", "topk"), "i32")
numbers |= dict.fromkeys(("inverse_temperature", "value_factor", "gradient_factor"), "fp32")
for capability, logits in ((80, "bf16"), (90, "fp32")):
    types = {"logits_ptr": logits, "gradient_ptr": logits, "index_ptr": "u16"}
    loss = {name: "*" + types.get(name, "fp32") for name in kernels.loss_kernel.arg_names if name.endswith("_ptr")}
    scale = {"values_ptr": "*" + logits, "factor_ptr": "*fp32", "count": "i32", "BLOCK": "constexpr"}
    for kernel, signature, constexprs in (
        (kernels.loss_kernel, {**loss, **numbers, **dict.fromkeys(constants, "constexpr")}, constants),
        (kernels.scale_kernel, scale, {"BLOCK": kernels._TILE}),
    ):
        compiled = compile(
            ASTSource(fn=kernel, signature=signature, constexprs=constexprs),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": 8, **kernels._OPTIONS},
        )
        assert compiled.asm["cubin"]
        print(kernel.fn.__name__, capability)
"""


def test_they_compile_for_gpus(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE],
        cwd=TESTS.parent,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.split() == ["loss_kernel", "80", "scale_kernel", "80", "loss_kernel", "90", "scale_kernel", "90"]


def test_where_triton_finds_no_device_the_plain_form_is_used() -> None:
    with pytest.warns(UserWarning, match="do not work on cpu .*the plain form is used"):
        assert not one_pass.kernels_work.__wrapped__(torch.device("cpu"))
