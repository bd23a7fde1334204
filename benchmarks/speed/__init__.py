"""Meta-iterations side by side with what else there is."""
