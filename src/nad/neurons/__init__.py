"""The core of the method: contribution (Eq. 1), activation (Eqs. 2, 3, 5 and 6) and agreement (Eq. 4)."""

from nad.neurons.activation import ActivationRule, ActivationSet, activation_set, parse_rule
from nad.neurons.agreement import consensus_curve, consensus_matrix, weighted_consensus_matrix

__all__ = [
    "ActivationRule",
    "ActivationSet",
    "activation_set",
    "consensus_curve",
    "consensus_matrix",
    "parse_rule",
    "weighted_consensus_matrix",
]
