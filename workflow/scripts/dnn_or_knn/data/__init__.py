"""Data sets: downloads, stores, label sets."""
