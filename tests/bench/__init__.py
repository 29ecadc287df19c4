"""What `make bench` measures: medians over repetitions, compared within one run on one machine. Nothing is asserted."""
