"""Problems from files: rows by number, orders drawn by seed, positions that a checkpoint can carry."""

from megatron_bridge.data.errors import DataError
from megatron_bridge.data.files import Rows, open_rows
from megatron_bridge.data.order import Order

__all__ = ["DataError", "Order", "Rows", "open_rows"]
