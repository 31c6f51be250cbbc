"""Expected weights stated beside a spec: read, compared with what the spec compiles to, and written anew.

`NAME.expect.yaml` is about `NAME.trace`; docs/testing-specs.md describes it. Only `evaluate` needs torch.
"""
