"""tracemill: PyTorch-style scripts compiled to one static IR."""
