"""The papers' tables, each as one command: `python -m benchmarks.tables sine_turtle --seeds 5`."""
