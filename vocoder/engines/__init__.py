"""Ways to run a model faster or elsewhere: the frame engine, machine code by numba, ONNX."""
