"""`python -m research.scale`: measure, check, report."""
