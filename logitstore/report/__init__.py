"""Pictures and tables made after the fact: of what a store holds, of how models relate classes.

Pictures need matplotlib, the extra ``report``, which loads where something is drawn; only the command line imports this
package.
"""

from __future__ import annotations

from logitstore.report.contact_sheet import contact_sheet
from logitstore.report.correlation import CorrelationConfig, CorrelationResult, correlate

__all__ = ["CorrelationConfig", "CorrelationResult", "contact_sheet", "correlate"]
