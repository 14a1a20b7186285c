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
from minialex.backends.signatures import OPS, STEMS
from minialex.spec import BackendUnavailable
from minialex.testing.onhost import OnHost

BACKENDS = ("reference", "cpu")     # those whose arrays are NumPy's: on every machine
COMPILED = ("emulated", "cuda")         # those with arrays of their own, where they are built
LONGEST = ("test_static", "test_checked", "test_kernel_mutants", "test_two_devices", "test_tensor_core", "test_ptx", "test_zoo")


def load_or_skip(name: str):
    """The backend, or a skip with the reason, which MINIALEX_REQUIRE=name,name turns into a failure.  A backend that
    needs nothing but NumPy is always required."""
    try:
        return backends.load(name)
    except BackendUnavailable as error:
        if name in (*BACKENDS, *os.environ.get("MINIALEX_REQUIRE", "").split(",")):
            pytest.fail(f"{name} is required, but it is not available: {error}")
        pytest.skip(str(error))


def compiled_backends() -> list[str]:
    """The compiled backends that load here or are required."""
    required = os.environ.get("MINIALEX_REQUIRE", "").split(",")
    return [name for name, reason in backends.available().items() if name in COMPILED and (reason is None or name in required)]


def ways(stem: str) -> list[str]:
    """Each compiled backend as its `choose` decides, then with each float32 variant that an op of the stem has."""
    names = []
    for backend in compiled_backends():
        names.append(backend)
        try:
            kernels = backends.load(backend).kernels
        except BackendUnavailable:
            continue                                                        # required, but not there: the fixture fails
        tables = [op for op in OPS if op.startswith(f"{stem}_") and op in kernels.extension.tables]
        rows = dict.fromkeys(name for op in tables for name in kernels.variants(op) if kernels.precision_of(op, name) == "float32")
        names += [f"{backend}:{variant}" for variant in rows]
    return names


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests marked long (minutes to hours)")


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False          # of several processes: files in the order below, not by their number of tests


def pytest_collection_modifyitems(config, items):
    """Files that take a process minutes begin first.  What is marked long has a short version beside it, which always runs."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long: run with --long"))


def pytest_generate_tests(metafunc):
    if "ops" in metafunc.fixturenames:
        stem = metafunc.module.__name__.removeprefix("test_")
        metafunc.parametrize("ops", [*BACKENDS, *(ways(stem) if stem in STEMS else [])], indirect=True)


@pytest.fixture
def ops(request):
    """Each backend in turn, the compiled ones behind NumPy arrays; its number of workers is put back afterwards."""
    name, _, variant = request.param.partition(":")
    module = load_or_skip(name)
    workers = module.workers()
    yield OnHost(module, variant or None) if name in COMPILED else module
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
