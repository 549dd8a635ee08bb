"""From one machine to servers, or back: what each part of the features holds is copied, and the copy is counted."""
