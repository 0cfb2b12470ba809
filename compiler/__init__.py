"""Passes, pipeline, kernel generation and the command line."""
