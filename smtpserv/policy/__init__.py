"""Who may do what: each policy is asked by the server, and knows nothing of how it asks."""
