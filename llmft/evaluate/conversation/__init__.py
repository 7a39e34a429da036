"""Whole conversations: the next turn of real ones, and calls of simulated patients."""
