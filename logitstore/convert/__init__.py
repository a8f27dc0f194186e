"""``convert``: complete epochs of a store in another form, packed or standard, without loss.

config   what to convert, and what came of it
run      shard after shard, the base epochs first
"""

from logitstore.convert.config import ConvertConfig, ConvertResult
from logitstore.convert.run import convert

__all__ = ["ConvertConfig", "ConvertResult", "convert"]
