"""What the gate reports to its operator: access log, audit log, own log and metrics."""
