"""Where features are kept for Feast: sorted histories offline, packed vectors online."""
