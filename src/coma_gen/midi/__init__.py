"""Music as notes in seconds, and bounded reading and writing of MIDI files."""
