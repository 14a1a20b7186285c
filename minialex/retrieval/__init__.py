"""Pictures found by what the network sees in them: features of any layer, exact search, short binary codes (paper, section 6.1)."""

from .codes import Codes, hyperplanes, train_codes
from .features import FeatureFile, features_of, write_features
from .search import hamming_nearest, nearest, recall

__all__ = ["Codes", "FeatureFile", "features_of", "hamming_nearest", "hyperplanes", "nearest", "recall", "train_codes", "write_features"]
