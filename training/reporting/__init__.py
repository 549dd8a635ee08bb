"""Whether a campaign paid: outcomes attributed to decisions, and what they say beside what was promised."""
