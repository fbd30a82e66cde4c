"""Notes as sound: a piano made of numbers, its room, and SoundFonts."""
