"""The page for people who run the programme: one typed overview, gathered from what is there, and laid out as HTML."""
