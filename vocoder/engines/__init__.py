"""Ways to run a model faster or elsewhere: frame engine, refinement, numba, ONNX."""
