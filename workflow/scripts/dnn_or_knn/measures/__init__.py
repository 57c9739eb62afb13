"""Accuracy, P_SAME, D_KL, and their tables."""
