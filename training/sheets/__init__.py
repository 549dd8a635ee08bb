"""Judgements set for people: figures, sheets and pictures."""
