"""What a user looks at results with: the subcommands of results.py."""
