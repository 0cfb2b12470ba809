"""The Python frontend: PyTorch-style scripts become graphs of the IR."""
