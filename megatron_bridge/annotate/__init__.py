"""Annotators: which spans of a response decided it, or where it went wrong."""
