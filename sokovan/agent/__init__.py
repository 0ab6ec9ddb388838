"""What runs kernels on one machine: it starts, watches and stops them, and never loses an end."""
