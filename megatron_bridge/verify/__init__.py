"""Verifiers: is a response right, and why not."""

from megatron_bridge.verify.grade import Grade, Verifier, VerifierError, check_failures
from megatron_bridge.verify.settings import (
    ExactSettings,
    GymVerifierSettings,
    MathSettings,
    PythonSettings,
    VerifierSettings,
)

__all__ = [
    "ExactSettings",
    "Grade",
    "GymVerifierSettings",
    "MathSettings",
    "PythonSettings",
    "Verifier",
    "VerifierError",
    "VerifierSettings",
    "check_failures",
]
