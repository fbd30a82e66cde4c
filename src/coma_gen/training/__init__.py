"""Training: loop, optimizers, schedule, validation, checkpoints and resuming."""
