"""What a run directory tells, as a page: read from its text files alone, without torch.

`read` gives a `Run`, `measures` and `sections` make charts of it, `svg` draws them and `html` sets the page.
"""
