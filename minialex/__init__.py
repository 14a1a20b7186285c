"""MiniAlex: AlexNet as it really was, in NumPy and CUDA, small enough to read."""

__version__ = "0.1.0"
