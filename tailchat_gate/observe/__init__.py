"""The gate's reports to its operator: access log, audit log, own log and metrics."""
