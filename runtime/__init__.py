"""Plans, buffers, devices and the executor. Knows nothing of the compiler or of any frontend."""
