"""Tokens on disk: written once, read memory-mapped, cut into training windows."""
