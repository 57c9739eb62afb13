"""Certified solvers, independent of the probes that use them."""
