"""Retraining: what should the next model be."""
