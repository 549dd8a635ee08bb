"""What a member may ask of us: to be left alone, to see what we hold, and to be forgotten."""
