"""Operators and functions, element by element, on float64 tensors of one shape; predicates are 0.0 and 1.0."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.terms import Function, Operator


def operate(op: Operator, args: list[Tensor]) -> Tensor:
    match op:
        case Operator.NEG:
            return -args[0]
        case Operator.NOT:
            return 1.0 - args[0]
        case Operator.ADD:
            return args[0] + args[1]
        case Operator.SUB:
            return args[0] - args[1]
        case Operator.MUL:
            return args[0] * args[1]
        case Operator.DIV:
            return args[0] / args[1]
        case Operator.LT:
            return (args[0] < args[1]).double()
        case Operator.LE:
            return (args[0] <= args[1]).double()
        case Operator.GT:
            return (args[0] > args[1]).double()
        case Operator.GE:
            return (args[0] >= args[1]).double()
        case Operator.EQ:
            return (args[0] == args[1]).double()
        case Operator.NE:
            return (args[0] != args[1]).double()
        case Operator.AND:
            return torch.stack(args).amin(0)
        case Operator.OR:
            return torch.stack(args).amax(0)
        case _:
            assert_never(op)


def apply(function: Function, args: list[Tensor]) -> Tensor:
    match function:
        case Function.EXP:
            return args[0].exp()
        case Function.LOG:
            return args[0].log()
        case Function.ABS:
            return args[0].abs()
        case Function.SIGN:
            return torch.where(args[0].isnan(), args[0], args[0].sign())  # torch gives 0 for what is no number
        case Function.SQRT:
            return args[0].sqrt()
        case Function.SIGMOID:
            return args[0].sigmoid()
        case Function.SOFTPLUS:
            return torch.nn.functional.softplus(args[0])
        case Function.CLIP:
            return torch.minimum(torch.maximum(args[0], args[1]), args[2])
        case Function.MIN:
            return torch.stack(args).amin(0)
        case Function.MAX:
            return torch.stack(args).amax(0)
        case Function.WHERE:
            return torch.where(args[0] != 0, args[1], args[2])
        case _:
            assert_never(function)
