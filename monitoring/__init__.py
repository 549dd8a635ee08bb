"""Watch whether it is still true."""
