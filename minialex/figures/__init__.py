"""Pictures of a run.  matplotlib is imported inside the functions: it takes a second, and training does not need it until the end."""

from .arms import arms
from .bars import bars
from .curves import curves
from .filters import colourfulness, filters
from .neighbours import neighbours
from .predictions import predictions
from .timeline import timeline

__all__ = ["arms", "bars", "colourfulness", "curves", "filters", "neighbours", "predictions", "timeline"]
