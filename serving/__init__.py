"""One decision for one member: fast, durable, explained."""
