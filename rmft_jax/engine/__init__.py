"""Runs sweeps: many cells as few compiled programs, on this machine or on a cluster."""
