"""Systems to compare with: a script for each, with its pinned dependencies in its head."""
