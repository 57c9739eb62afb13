"""Layer features: extraction and dumps."""
