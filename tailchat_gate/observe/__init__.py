"""What the gate tells its operator: access log and metrics."""
