"""Networks as ONNX graphs, made from their weights when they are needed: what runs them needs no
torch."""
