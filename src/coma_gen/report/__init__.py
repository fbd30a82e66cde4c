"""Music and metrics to look at and listen to: piano rolls, charts, sound, the report page."""
