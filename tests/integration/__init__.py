"""Tests that need sockets, other programs, or a server in a process of its own."""
