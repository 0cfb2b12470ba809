"""Generators of contraction and window kernels: batched GEMM, convolution and its gradients, pooling."""
