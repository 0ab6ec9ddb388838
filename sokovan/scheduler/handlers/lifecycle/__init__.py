"""The handlers that carry a session from PENDING to its end."""
