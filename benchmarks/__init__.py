"""Benchmarks, one script per question, compared with other packages and with the limits of the hardware."""
