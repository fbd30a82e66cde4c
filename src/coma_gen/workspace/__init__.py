"""Where things live in a checkout, and what is done to it: paths, resume folder, presets, verification,
summary.
"""
