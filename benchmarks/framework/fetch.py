"""timm's pretrained weights of a model as a file: ``python -m benchmarks.framework.fetch swin_t FILE.safetensors``.

A teacher that the protocol fine-tunes starts from such a file, so that a run goes on with the same weights wherever it
is resumed. Prints one JSON object, as the other commands do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from logitstore.cards import write_atomically
from logitstore.errors import LogitStoreError


def fetch(name: str, path: Path) -> dict[str, object]:
    """Write the weights of timm's default tag.

    Args:
        name: short or timm name of a model, with a tag or without.
        path: the file to write, ending in ``.safetensors``.

    Raises:
        ModelError: there are none, or they are neither in the cache nor to be fetched.
    """
    from safetensors.torch import save_file

    from logitstore.cards import weights_sha256
    from logitstore.models import pretrained_model

    model = pretrained_model(name, size=224, model_args={})
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))
    tag = getattr(model, "pretrained_cfg", {}).get("tag")
    return {"checkpoint": str(path), "tag": tag, "sha256": weights_sha256(state)}


def main() -> None:
    """Parse, fetch, print."""
    name, path = (word for word in sys.argv[1:] if not word.startswith("--"))
    try:
        print(json.dumps(fetch(name, Path(path))))
    except LogitStoreError as error:
        print(
            f"{error} Or name what the teacher starts from: --teacher-checkpoint FILE, --teacher-init FILE or random, "
            "--pretrain-data DATA.",
            file=sys.stderr,
        )
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
