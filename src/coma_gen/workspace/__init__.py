"""The checkout: paths, stage runner, presets, doctor, verification, summary."""
