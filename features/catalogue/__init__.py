"""The features themselves, by subject, and the catalogue that they enter."""
