"""Logged decisions and campaigns: what was drawn or targeted, what followed, what can be learned from it."""
