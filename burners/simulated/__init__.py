"""Robots that exist as a program only: they follow the files, renames and timing of the real ones."""
