"""Figures 1 to 7 and the training curves."""
