"""What keeps a home well over the years: copies of its database, and an end for old rows."""
