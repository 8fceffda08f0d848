"""Ways to run a model faster or elsewhere: frame engine, machine code, mel consistency, ONNX."""
