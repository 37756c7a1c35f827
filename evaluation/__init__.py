"""Evaluation as the paper evaluated: answers, scores, results on disk, and the paper's tables."""
