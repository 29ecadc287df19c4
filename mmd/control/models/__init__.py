"""Names of models, hub search, startup modes, and the installed engines."""
