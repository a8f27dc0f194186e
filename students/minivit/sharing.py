"""What weight sharing needs of modules: to use a part without owning it, and to take over a module as a subclass.

A part that several modules use is registered in one of them. The others hold a plain reference: the part occurs once in
``state_dict()``, in ``parameters()`` and in files, and moves, trains and is copied with its owner.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def refer(module: nn.Module, name: str, part: nn.Module) -> None:
    """Let ``module.name`` be a part that another module owns, in place of its own."""
    delattr(module, name)
    # Past nn.Module's own __setattr__, which would register it.
    module.__dict__[name] = part


def referred(module: nn.Module) -> dict[str, nn.Module]:
    """The parts that a module uses and does not own, by attribute."""
    return {name: part for name, part in vars(module).items() if isinstance(part, nn.Module)}


def adopt(kind: type[_Module], module: nn.Module) -> _Module:
    """A module of this kind, a subclass of the module's class, with all that the module has; the module is used up."""
    assert issubclass(kind, type(module))
    adopted = kind.__new__(kind)
    vars(adopted).update(vars(module))
    return adopted
