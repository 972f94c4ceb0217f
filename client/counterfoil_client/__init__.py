"""Typed Python client of Counterfoil, synchronous and asynchronous."""

from counterfoil_client.client import AsyncCounterfoil, Counterfoil
from counterfoil_client.problem import Problem

__all__ = ["AsyncCounterfoil", "Counterfoil", "Problem"]
