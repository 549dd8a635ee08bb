"""Is it still true?"""
