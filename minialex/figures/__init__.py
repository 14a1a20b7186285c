"""Pictures of a run.  matplotlib is imported inside the functions: it takes a second, and training does not need it until the end."""

from .curves import curves
from .filters import filters
from .predictions import predictions
from .timeline import timeline

__all__ = ["curves", "filters", "predictions", "timeline"]
