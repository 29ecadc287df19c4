"""The measurements of `make bench`: medians over repetitions, compared within one run on one machine. Nothing is
asserted.
"""
