"""What a user runs beside the workflow: the subcommands of results.py, and the check of a GPU."""
