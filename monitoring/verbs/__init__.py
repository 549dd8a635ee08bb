"""Verbs of the front door whose work this layer does."""
