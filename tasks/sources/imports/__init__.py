"""What lies on this machine already: one module for each layout of a folder, and what they share.

A layout has ``is_here(folder)`` and ``photos(folder)``, whose rows have the columns of "listings" that it knows.
"""
