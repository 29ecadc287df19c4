"""Find what is wrong on this machine, and the command that fixes it.

`readings` reads every input in its own thread with a time limit, so that a program that hangs delays nothing else.
`checks` holds the table of checks; each check is a pure function from readings to diagnoses.
"""
