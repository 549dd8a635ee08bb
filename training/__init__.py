"""From features to a judged model."""
