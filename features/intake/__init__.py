"""A company's tables on their way in: read, conformed, checked, and quarantined where they are wrong."""
