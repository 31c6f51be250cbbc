"""`python -m trace_dsl` is `trace-dsl`."""

from trace_dsl.cli.main import run

if __name__ == "__main__":
    run()
