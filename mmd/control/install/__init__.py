"""Install mmd's units and engines, and tell whether a gateway runs."""
