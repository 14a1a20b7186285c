"""What the compiled backends add to the ops' own tests: arrays of a device, tables of variants, and every way to hand over a
wrong array, which must be refused by name before a kernel runs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from calls import COMPUTING, PER_IMAGE, right
from conftest import BACKENDS, compiled_backends, load_or_skip

from minialex.spec import PRECISIONS, DeviceMemoryError, DTypeError, LayoutError, MiniAlexError, ShapeError
from minialex.testing import refused
from minialex.testing.onhost import as_read

ONE_ROW = ()            # ops whose table has "direct" alone


@pytest.fixture(params=compiled_backends())
def kernels(request):
    """The ops on device 0 of each compiled backend."""
    return load_or_skip(request.param).kernels


def on_device(kernels, call, variant=None):
    return {name: kernels.from_host(array) for name, array in as_read(kernels, call.op, variant, call.arrays).items()}


def refuses(kernels, call, error, device, **changes):
    """The message of the call with some arguments changed, when it raised `error` and left every array as it was."""
    before = {name: kernels.to_host(array) for name, array in device.items()}
    with pytest.raises(error) as raised:
        getattr(kernels, call.op)(**{**device, **call.options, **changes})
    for name, array in device.items():
        assert kernels.to_host(array).tobytes() == before[name].tobytes(), f"{call.op} wrote {name} before it refused"
    message = str(raised.value)
    assert message.startswith(f"{call.op}: ") and "\n" not in message
    return message


# ---------------------------------------------------------------- arrays that are not as they should be
@pytest.mark.parametrize("op", COMPUTING)
def test_the_right_call_runs(kernels, op):
    """Without which the refusals below would prove nothing."""
    call = right(op)
    device = on_device(kernels, call)
    getattr(kernels, op)(**device, **call.options)
    for name in device:
        same = kernels.to_host(device[name]).tobytes() == call.arrays[name].tobytes()
        assert same == (name not in call.outputs), f"{name} {'was not' if same else 'was'} written"


@pytest.mark.parametrize("op", COMPUTING)
def test_host_arrays_are_refused(kernels, op):
    call = right(op)
    device = on_device(kernels, call)
    for name, array in call.arrays.items():
        host = array.copy()
        message = refuses(kernels, call, LayoutError, device, **{name: host})
        assert message.startswith(f"{op}: {name} is a ndarray") and "from_host" in message and host.tobytes() == array.tobytes()


@pytest.mark.parametrize("op", COMPUTING)
def test_arrays_of_another_device_are_refused(kernels, op):
    if len(kernels.devices()) < 2:
        pytest.skip("this backend has one device")
    call, there = right(op), kernels.on(1)
    device = on_device(kernels, call)
    for name, array in call.arrays.items():
        assert "lies on device 1" in refuses(kernels, call, LayoutError, device, **{name: there.from_host(array)})


@pytest.mark.parametrize("op", COMPUTING)
def test_arrays_of_another_type_are_refused(kernels, op):
    call = right(op)
    device = on_device(kernels, call)
    for name, array in call.arrays.items():
        other = np.int32 if array.dtype == np.float32 else np.float32
        refuses(kernels, call, DTypeError, device, **{name: kernels.from_host(array.astype(other))})


@pytest.mark.parametrize("op", COMPUTING)
def test_arrays_of_another_rank_are_refused(kernels, op):
    call = right(op)
    device = on_device(kernels, call)
    for name, array in device.items():
        refuses(kernels, call, ShapeError, device, **{name: array.reshape((1, *array.shape))})


class Apart:
    """A device array whose last axis claims to take every second element, as CuPy's slices can and the emulator's cannot."""

    def __init__(self, array):
        self.array, self.flags = array, SimpleNamespace(c_contiguous=False)
        steps = [2 * array.itemsize * math.prod(array.shape[axis + 1:]) for axis in range(array.ndim)]
        self.strides, self.memory_range = tuple(steps), _range(array)
        facts = dict(shape=array.shape, typestr=array.dtype.str, data=(self.memory_range[0], False), strides=self.strides, version=3)
        self.__emulated_array_interface__ = self.__cuda_array_interface__ = facts

    def __getattr__(self, name):
        return getattr(self.array, name)


def _range(array):
    if hasattr(array, "memory_range"):
        return array.memory_range
    return (array.data.ptr, array.data.ptr + array.nbytes)


@pytest.mark.parametrize("op", COMPUTING)
def test_arrays_with_gaps_are_refused(kernels, op):
    call = right(op)
    device = on_device(kernels, call)
    for name, array in device.items():
        assert "contiguous" in refuses(kernels, call, LayoutError, device, **{name: Apart(array)})


@pytest.mark.parametrize("op", COMPUTING)
def test_unaligned_arrays_are_refused(kernels, op):
    """A float4 at an odd address is a dead context on a GPU."""
    call = right(op)
    device = on_device(kernels, call)
    for name, array in call.arrays.items():
        shifted = kernels.empty((array.size + 1,), array.dtype)[1:array.size + 1].reshape(array.shape)
        assert "no multiple of 16 bytes" in refuses(kernels, call, LayoutError, device, **{name: shifted})


@pytest.mark.parametrize("op", COMPUTING)
def test_outputs_over_other_arrays_are_refused(kernels, op):
    """Also where y may be x: equal, or apart, but not shifted."""
    call = right(op)
    device = on_device(kernels, call)
    floats = [name for name, array in call.arrays.items() if array.dtype == np.float32]
    for out in call.outputs:
        for other in floats:
            if other == out:
                continue
            first, second = sorted((out, other), key=lambda name: -call.arrays[name].size)
            a, b = call.arrays[first], call.arrays[second]
            memory = kernels.empty((max(a.size, 4 + b.size),))
            cut = {first: memory[:a.size].reshape(a.shape), second: memory[4:4 + b.size].reshape(b.shape)}
            assert "overlaps" in refuses(kernels, call, LayoutError, device, **cut)


@pytest.mark.parametrize("op", PER_IMAGE)
def test_a_batch_of_no_images_is_refused(kernels, op):
    call = right(op, N=0)
    refuses(kernels, call, ShapeError, on_device(kernels, call))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", PER_IMAGE)
def test_a_batch_of_no_images_is_refused_on_the_host(backend, op):
    """By the same words as on a device."""
    call = right(op, N=0)
    refused(load_or_skip(backend), op, ShapeError, call.outputs, **call.arrays, **call.options)


@pytest.mark.parametrize("op", [op for op in COMPUTING if "pool" in op or op.startswith(("conv", "local"))])
def test_a_window_larger_than_the_input_is_refused(kernels, op):
    call = right(op)
    if "pool" in op:
        assert "does not fit" in refuses(kernels, call, ShapeError, on_device(kernels, call), window=7)
        return
    name = "dw" if op.endswith("wgrad") else "w"
    shape = list(call.arrays[name].shape)
    shape[-3] = 9                                           # rows of the filter; the input has 6 and padding of 1
    call.arrays[name] = np.ones(shape, np.float32)
    assert "does not fit" in refuses(kernels, call, ShapeError, on_device(kernels, call))


# ---------------------------------------------------------------- variants
@pytest.mark.parametrize("op", COMPUTING)
def test_an_unknown_variant_is_refused_and_the_known_are_named(kernels, op):
    call = right(op)
    message = refuses(kernels, call, ShapeError, on_device(kernels, call), variant="fastest")
    assert "there is no variant fastest" in message and message.endswith(f"there are {', '.join(dict(kernels.extension.tables[op]))}")


@pytest.mark.parametrize("op", COMPUTING)
def test_a_variant_runs_a_shape_or_says_why_not(kernels, op):
    """Of three channels, which no vector of four divides."""
    call = right(op, C=3, H=7)
    for variant in kernels.variants(op):
        device = on_device(kernels, call, variant)
        try:
            getattr(kernels, op)(**device, **call.options, variant=variant)
        except ShapeError as error:
            assert variant != "direct" and f"variant {variant} does not run " in str(error), error
            refuses(kernels, call, ShapeError, device, variant=variant)
    getattr(kernels, op)(**on_device(kernels, call), **call.options)        # unforced, each shape runs


def test_a_refusal_names_the_shape_and_the_rule(kernels):
    call = right("dropout_fprop", C=3)
    message = refuses(kernels, call, ShapeError, on_device(kernels, call), variant="vector")
    assert message == "dropout_fprop: variant vector does not run 2x3x6x5x3: the channels of a column are no multiple of 4"


@pytest.mark.parametrize("op", COMPUTING)
def test_tables(kernels, op):
    names = kernels.variants(op)
    assert names[-1] == "direct" and len(set(names)) == len(names)
    assert (len(names) == 1) == (op in ONE_ROW), f"{op}: {names}"
    assert all(kernels.precision_of(op, name) in PRECISIONS for name in names)
    assert kernels.precision_of(op, "direct") == "float32"


def test_choose_looks_at_the_dims_alone(kernels):
    """The same before and after other work, and float32 where a precision has no row of its own."""
    dims = (2, 3, 1, 1, 8)
    assert [kernels.choose("dropout_fprop", dims, precision) for precision in PRECISIONS] == ["vector"] * len(PRECISIONS)
    kernels.relu_fprop(kernels.from_host(np.ones((1, 1, 1, 1, 9), np.float32)), kernels.empty((1, 1, 1, 1, 9)), variant="direct")
    assert kernels.choose("dropout_fprop", (2, 3, 1, 1, 7)) == "direct"
    assert kernels.choose("dropout_fprop", dims) == "vector"


TRACED = """
import sys
from minialex import backends
k = backends.load(sys.argv[1]).kernels
for size in (12, 5, 12, 12):
    x = k.empty((1, 1, 1, 1, size))
    k.relu_fprop(x, x)
k.relu_fprop(x, x, variant="direct")
k.tanh_fprop(x, x)
"""


def traced(kernels, request, value):
    name = request.node.callspec.params["kernels"]
    done = subprocess.run([sys.executable, "-c", TRACED, name], env={**os.environ, "MINIALEX_TRACE": value}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("[minialex]")]


def test_trace_says_once_for_each_op_and_shape_which_variant_runs(kernels, request):
    assert traced(kernels, request, "1") == [
        "[minialex] relu_fprop 12 elements -> vector (float32)", "[minialex] relu_fprop 5 elements -> vector (float32)",
        "[minialex] relu_fprop 12 elements -> direct (float32)", "[minialex] tanh_fprop 12 elements -> vector (float32)"]
    assert traced(kernels, request, "0") == []


def test_a_wrong_precision_is_refused_and_the_right_ones_are_named(kernels):
    for wrong in ("float64", "fp32", "", "TF32"):
        with pytest.raises(MiniAlexError, match="float32, tf32, bf16, bf16x3, bf16x6"):
            kernels.set_precision(wrong)
    for name in reversed(PRECISIONS):
        kernels.set_precision(name)


# ---------------------------------------------------------------- device memory
def test_out_of_memory_says_how_much_was_asked_and_how_much_is_free(kernels):
    with pytest.raises(DeviceMemoryError, match=r"smaller batch") as raised:
        kernels.empty((1 << 40,))
    digits = str(raised.value).replace(",", "")
    assert str(1 << 42) in digits and "free" in digits
    array = kernels.from_host(np.arange(5, dtype=np.float32))               # and the device still works
    assert kernels.to_host(array).tolist() == [0, 1, 2, 3, 4]


def test_devices_are_numbered(kernels):
    count = len(kernels.devices())
    assert kernels.on(count - 1).devices() == kernels.devices()
    for number in (-1, count):
        with pytest.raises(MiniAlexError, match=f"there is no device {number}: this backend has {count}"):
            kernels.on(number)


@pytest.fixture
def emulated():
    return load_or_skip("emulated").kernels


def test_views_of_a_device_array(emulated):
    host = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    array = emulated.from_host(host)
    assert (array.shape, array.ndim, array.size, array.nbytes, len(array)) == ((4, 3, 2), 3, 24, 96, 4)
    for cut in (slice(1, 3), slice(None), slice(-1, None), slice(3, 1), slice(2, 9)):
        assert (emulated.to_host(array[cut]) == host[cut]).all() and array[cut].shape == host[cut].shape
    assert (emulated.to_host(array.reshape(2, -1)) == host.reshape(2, -1)).all()
    assert (emulated.to_host(array[2:].reshape((12,))) == host[2:].ravel()).all()
    emulated.from_host(np.full((2, 3, 2), 7, np.float32), array[1:3])       # a view writes into the whole
    assert (emulated.to_host(array)[:, 0, 0] == [0, 7, 7, 18]).all()


@pytest.mark.parametrize("wrong", [lambda a: a[0], lambda a: a[::2], lambda a: a[::-1], lambda a: a[:, 1:], lambda a: a[...], np.asarray,
                                   lambda a: a[a]], ids=("number", "step", "backwards", "axis 1", "ellipsis", "asarray", "mask"))
def test_a_device_array_gives_no_other_view(emulated, wrong):
    with pytest.raises(LayoutError, match=r"to_host|to the host"):
        wrong(emulated.from_host(np.zeros((4, 2), np.float32)))


def test_the_host_cannot_read_device_memory(emulated):
    array = emulated.from_host(np.zeros((4, 2), np.float32))
    assert not hasattr(array, "__array_interface__") and not hasattr(array, "__cuda_array_interface__")
    with pytest.raises(TypeError):
        memoryview(array)
    with pytest.raises(ShapeError, match="8 and 9 elements"):
        array.reshape(3, 3)


def test_wrong_copies_are_refused(emulated):
    array = emulated.from_host(np.ones((4, 2), np.float32))
    with pytest.raises(ShapeError):
        emulated.from_host(np.zeros((2, 4), np.float32), array)
    with pytest.raises(DTypeError):
        emulated.from_host(np.zeros((4, 2), np.int32), array)
    with pytest.raises(DTypeError, match="float64"):
        emulated.from_host(np.zeros((4, 2)))
    assert (emulated.to_host(array) == 1).all()


def test_fresh_memory_is_nan(emulated):
    assert np.isnan(emulated.to_host(emulated.empty((3, 5)))).all()
