"""A release that decides beside the champion, in a process of its own that runs only on what the champion leaves."""
