"""Machine code that is kept between runs: used again, but never after a file with kernels has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from logitstore import jit

PACKAGE = Path(jit.__file__).parent
CALL = "from logitstore.views.outer import g; print(g(1), sum(g.stats.cache_hits.values()))"


def run(folder: Path) -> list[str]:
    # Python itself would take a file for unchanged that has another text of the same length in the same second.
    call = [sys.executable, "-B", "-c", CALL]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_kept_code_is_used_until_a_kernel_that_is_compiled_in_changes(tmp_path: Path) -> None:
    views = tmp_path / "logitstore" / "views"
    views.mkdir(parents=True)
    shutil.copy(PACKAGE / "jit.py", tmp_path / "logitstore")
    inner = "from logitstore.jit import inlined\n\n@inlined\ndef f(x):\n    return x + {}\n"
    (views / "inner.py").write_text(inner.format(1))
    (views / "outer.py").write_text(
        "from logitstore.jit import kernel\nfrom logitstore.views.inner import f\n\n"
        "@kernel\ndef g(x):\n    return f(x)\n"
    )
    assert run(tmp_path) == ["2", "0"]
    assert run(tmp_path) == ["2", "1"]
    (views / "inner.py").write_text(inner.format(2))
    assert run(tmp_path) == ["3", "0"]
    assert run(tmp_path) == ["3", "1"]


def test_every_file_with_kernels_counts() -> None:
    counted = {file for pattern in jit.SOURCES for file in PACKAGE.glob(pattern)}
    users = {file for file in PACKAGE.rglob("*.py") if "from logitstore.jit import" in file.read_text()}
    assert len(users) > 10 and users <= counted
