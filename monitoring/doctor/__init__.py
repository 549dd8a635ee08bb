"""Whether this installation is sound: each part as it is set, the machine, and what serves."""
