"""Learners of uplift: nuisances and effects out of fold, distilled, with their intervals."""
