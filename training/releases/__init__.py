"""Releases: what one states of itself, what it is called, and which one served when."""
