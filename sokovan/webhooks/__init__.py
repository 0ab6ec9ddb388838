"""Telling others over HTTP what happens here."""
