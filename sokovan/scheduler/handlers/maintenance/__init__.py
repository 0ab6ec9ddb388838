"""The handlers that clear away what has waited too long."""
