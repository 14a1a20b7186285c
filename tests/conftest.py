"""Fixtures of all tests: the backends an op is proved on, and random numbers that are the same whenever a test runs."""

# ruff: noqa: E402

from __future__ import annotations

import os

# One BLAS thread, set before NumPy loads: the backends bring their own threads.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import zlib

import numpy as np
import pytest

from minialex import backends
from minialex.spec import BackendUnavailable

BACKENDS = ("reference", "cpu")     # those whose arrays are NumPy's: on every machine


def load_or_skip(name: str):
    """The backend, or a skip with the reason, which MINIALEX_REQUIRE=name,name turns into a failure.  A backend that
    needs nothing but NumPy is always required."""
    try:
        return backends.load(name)
    except BackendUnavailable as error:
        if name in (*BACKENDS, *os.environ.get("MINIALEX_REQUIRE", "").split(",")):
            pytest.fail(f"{name} is required, but it is not available: {error}")
        pytest.skip(str(error))


@pytest.fixture(params=BACKENDS)
def ops(request):
    """Each backend in turn; its number of workers is put back afterwards."""
    module = load_or_skip(request.param)
    workers = module.workers()
    yield module
    module.set_workers(workers)


@pytest.fixture
def oracle():
    """The reference backend, in float64 wherever a test hands it float64."""
    return load_or_skip("reference")


@pytest.fixture
def seed(request) -> int:
    """A number that depends on the test's name and parameters only; failure messages carry it."""
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def rng(seed) -> np.random.Generator:
    return np.random.default_rng(seed)
