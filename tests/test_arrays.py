"""Arrays between host and backend: copies, never views, and into place only what fits (blocks of images: test_blocks.py)."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.spec import DTypeError, ShapeError
from minialex.testing import assert_bits_equal, refused


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
def test_empty_has_the_type_asked_for(ops, dtype):
    array = ops.empty((2, 3, 4), dtype)
    assert array.shape == (2, 3, 4) and str(array.dtype) == dtype and array.flags.c_contiguous


def test_host_copies_do_not_follow_their_source(ops, rng):
    source = rng.standard_normal((3, 4)).astype(np.float32)
    turned = source[:, ::-1].copy()
    array = ops.from_host(source[:, ::-1])
    assert array.flags.c_contiguous
    source[...] = 0
    back = ops.to_host(array)
    back[...] = 1
    assert_bits_equal(ops.to_host(array), turned, "after changes to both sides")


def test_from_host_into_a_view(ops):
    flat = ops.from_host(np.zeros(12, np.float32))
    returned = ops.from_host(np.arange(6, dtype=np.float32).reshape(2, 3), out=flat[4:10].reshape(2, 3))
    assert returned.shape == (2, 3)
    assert ops.to_host(flat).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0]


@pytest.mark.parametrize("array, error", [(np.ones((3, 2), np.float32), ShapeError), (np.ones(6, np.float32), ShapeError),
                                          (np.ones((2, 3), np.float64), DTypeError)], ids=["turned", "flat", "wider"])
def test_from_host_refuses_what_does_not_fit(ops, array, error):
    message = refused(ops, "from_host", error, ("out",), array=array, out=np.zeros((2, 3), np.float32))
    assert message.startswith("from_host: array")
