"""Drift: has the world changed, and how."""
