"""Comparisons of objectives: a matrix of runs, methods x seeds, and what can be said of it.

`settings` reads the study file, `cells` says which runs there are, `runs` trains them, `records` keeps what each has to
say, `statistics` and `results` compare, `table` and `plots` show. docs/study.md describes it.
"""
