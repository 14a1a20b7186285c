"""Pictures: from what a user has to batches of a network's input (paper, sections 2, 4.1).

    open_source(path) -> Source -> prepare(source, out) -> Store -> Loader -> Batch -> transform(ops, batch, mean, out)

`open_store` is all of the first half in one call.
"""

from .augment import Draws, View, draw, views
from .decode import decode
from .loader import Batch, Loader, showing, transform
from .open import count, is_store, locate, open_store, store_of
from .order import epoch_order, permute
from .prepare import prepare
from .source import ClassInfo, DataError, ImageError, Item, Source, open_source
from .store import Split, Store, StoreError

__all__ = [
    "Batch", "ClassInfo", "DataError", "Draws", "ImageError", "Item", "Loader", "Source", "Split", "Store", "StoreError", "View",
    "count", "decode", "draw", "epoch_order", "is_store", "locate", "open_source", "open_store", "permute", "prepare", "showing",
    "store_of", "transform", "views",
]
