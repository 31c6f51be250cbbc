"""`python -m trace_dsl` is `trace-dsl`."""

from trace_dsl.cli.start import run

if __name__ == "__main__":
    run()
