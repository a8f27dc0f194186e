"""Pictures of what a store holds. Needs matplotlib, the extra ``report``; nothing else imports this package."""

from __future__ import annotations

from logitstore.report.contact_sheet import contact_sheet

__all__ = ["contact_sheet"]
