"""Executes the PTX that nvcc emits, in NumPy: the only check on a machine without a GPU that sees the kernels' inline assembly."""
