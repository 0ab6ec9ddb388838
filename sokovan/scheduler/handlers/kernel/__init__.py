"""The handlers that look after kernels rather than sessions."""
