"""Music as notes in seconds, and the one bounded door in and out of MIDI."""
