"""A shared budget against the uniform split of the same total."""
