"""Ways to run a model faster or elsewhere: frame engine, mel consistency, numba, ONNX."""
