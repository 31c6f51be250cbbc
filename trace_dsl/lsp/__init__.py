"""`trace-dsl lsp`: what editors ask about a spec. `server` speaks the protocol, every other module is a pure function
of a `Document`.
"""
