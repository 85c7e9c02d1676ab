"""Policies: who may connect, send and relay, and how often."""
