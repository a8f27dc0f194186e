"""Contract a TinyViT to fewer parameters and more images a second, distilling each candidate from the same store.

========== ============================================================================
module     what lives there
========== ============================================================================
config     what to contract, and to what: one field per option of the command
journal    the file of all candidates, which a search goes on from
bench      counts, times and trains candidates
result     what is found, and how it is said
picture    accuracy against parameters and against speed
run        ``contract``: all of it together
========== ============================================================================

Which candidates there are and how they are chosen lives in ``students.contract``.
"""

from logitstore.contract.config import ContractConfig
from logitstore.contract.result import ContractResult
from logitstore.contract.run import contract

__all__ = ["ContractConfig", "ContractResult", "contract"]
