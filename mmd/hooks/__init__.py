"""Programs that units run beside an engine. Standard library only, each started by path with `python -I -S`."""
