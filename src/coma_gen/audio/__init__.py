"""Audio: a synthesized piano, reverb, SoundFonts and sound files."""
