"""Few-shot image classification by every method, within a budget of time, beside the papers'
accuracies.
"""
