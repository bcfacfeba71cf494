"""The Python client of Ramify."""
