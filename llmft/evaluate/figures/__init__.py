"""What a set of answers is worth: figures as sums over calls, their intervals, groups, confidence."""
