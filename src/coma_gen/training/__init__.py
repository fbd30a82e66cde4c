"""The training loop: schedule, steps, validation, checkpoints, resume."""
