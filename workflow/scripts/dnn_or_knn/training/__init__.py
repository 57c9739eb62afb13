"""Training: augmentation, steps, the loop."""
