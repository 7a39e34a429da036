"""Attacks on the tuned model: does it give away what it was trained on?"""
