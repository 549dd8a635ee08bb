"""The closed loop in a world whose truth is known: decide, respond, learn, judge, promote, beside what rivals earn."""
