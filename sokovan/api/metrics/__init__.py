"""What Prometheus reads: the table of metrics, what is counted as it happens, and the state."""
