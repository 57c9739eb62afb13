"""The networks and their probe points."""
