"""What is wrong on this machine, and how to mend it.

`examination` holds the table of checks. What they run is read before, each thing in a thread of its own and within a
limit, so that nothing which hangs holds up the rest; the judgements themselves are pure.
"""
