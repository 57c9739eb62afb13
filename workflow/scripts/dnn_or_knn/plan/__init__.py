"""What will run: configuration, runs, specifications. No torch."""
