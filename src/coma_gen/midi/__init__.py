"""Music as notes in seconds, and reading and writing of MIDI files within bounds."""
