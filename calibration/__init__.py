"""Reduced precision: INT8 graphs with explicit Q/DQ, and FP16 graphs, held to fp32.

`cache`, `sample` and `calibration_settings` need NumPy only; the rest needs the onnx package and
ONNX Runtime.
"""
