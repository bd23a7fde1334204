"""Few-shot image classification by every method within a time budget, beside the papers."""
