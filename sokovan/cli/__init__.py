"""The `sokovan` command."""
