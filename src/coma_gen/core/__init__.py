"""Foundations: errors, file I/O, artifacts, multiprocessing and seeding."""
