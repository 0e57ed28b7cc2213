"""The connections to tools: names, dialling, pools, bounds."""
