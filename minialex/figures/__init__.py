"""Pictures of a run.  matplotlib is imported inside the functions: it takes a second, and training does not need it until the end."""

from .arms import arms
from .bars import bars
from .confusion import confused, confusion
from .curves import curves, overlaid
from .filters import colourfulness, deeper, filters
from .maps import maps
from .mistakes import mistaken
from .neighbours import neighbours
from .predictions import predictions
from .statistics import statistics
from .timeline import timeline

__all__ = ["arms", "bars", "colourfulness", "confused", "confusion", "curves", "deeper", "filters", "maps", "mistaken", "neighbours",
           "overlaid", "predictions", "statistics", "timeline"]
