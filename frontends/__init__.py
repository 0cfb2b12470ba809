"""How programs come in: the Python tracing frontend."""
