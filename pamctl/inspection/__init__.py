"""What is in an adapter, and how two adapters relate, as plain records that can be printed or serialised."""

from pamctl.inspection.contents import describe
from pamctl.inspection.relation import relate

__all__ = ["describe", "relate"]
