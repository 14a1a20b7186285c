"""What the proofs of an op are made of, shipped like numpy.testing: cases, bounds, guarded calls, gradient check, mutants."""

from .compare import assert_bits_equal, assert_exact, assert_within, positive_bound, zero_mean_bound
from .gradcheck import assert_gradients, away_from, distinct, worst_ratio
from .guard import Guarded, call, refused
from .mutants import Mutant, mutant

__all__ = ["Guarded", "Mutant", "assert_bits_equal", "assert_exact", "assert_gradients", "assert_within", "away_from", "call", "distinct",
           "mutant", "positive_bound", "refused", "worst_ratio", "zero_mean_bound"]
