"""Every table and figure of the five papers as a command: `python -m benchmarks.papers list`."""
