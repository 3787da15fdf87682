"""Query strategies: which k of the pool to ask a person about. Pure numpy; the same arguments give the same picks.

One family a module: `ranking` looks at one sample at a time, `coverage` at the embeddings alone, `spreading` at both,
`relabel` at what has labels already. `plugins` finds a user's own.
"""

from services.select_uncertain.strategies.coverage import coverage, k_center
from services.select_uncertain.strategies.plugins import BadStrategy, Strategies
from services.select_uncertain.strategies.pool import Pick, Pool, Strategy
from services.select_uncertain.strategies.ranking import entropy, least_confidence, margin, power_margin, random
from services.select_uncertain.strategies.spreading import badge, cluster_margin, falcun, k_means, uncertainty_coverage

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "BadStrategy", "Pick", "Pool", "Strategies", "Strategy"]

STRATEGIES = Strategies(
    {
        "random": random,
        "least_confidence": least_confidence,
        "margin": margin,
        "entropy": entropy,
        "power_margin": power_margin,
        "uncertainty_coverage": uncertainty_coverage,
        "k_means": k_means,
        "cluster_margin": cluster_margin,
        "badge": badge,
        "falcun": falcun,
        "coverage": coverage,
        "k_center": k_center,
    }
)
"""Every strategy by its name. With no model's opinion in the pool, all but `random` and `k_center` pick by coverage."""
DEFAULT_STRATEGY = "uncertainty_coverage"
