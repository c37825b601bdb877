"""Looks for everything in a user's data that makes masks wrong, scores too good, or training slow."""
