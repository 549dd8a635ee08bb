"""A whole audience decided at once: who it is, part by part, under a budget, into a file and into the log."""
