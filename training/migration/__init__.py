"""From one machine to servers, or back: runs, models' versions and studies, and everything in one go."""
