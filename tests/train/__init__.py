"""A package, since some of its modules have the names of others."""
