"""How any job runs; never part of a code digest."""
