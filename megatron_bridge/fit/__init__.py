"""What a run needs of each rank's memory, and how long its steps take, computed from the run file alone."""
