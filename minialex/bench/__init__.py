"""Measurements: `python -m minialex.bench --help`.  Not part of the library's promises; nothing below imports it."""
