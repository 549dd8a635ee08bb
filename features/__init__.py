"""What is known of a member as of a time."""
