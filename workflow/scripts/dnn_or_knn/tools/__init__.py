"""What people run beside the workflow."""
