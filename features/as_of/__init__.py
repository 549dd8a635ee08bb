"""What is known at a moment, by whichever way it is asked, and the checks that all ways agree."""
