"""The decision log: what was decided for whom, why, with which propensity, and what followed.

A decision is durable before it is answered. This is the log's door, for every layer.
"""

from features.log.book import Contact, Seen, Spending
from features.log.calls import Log
from features.log.columns import Block, campaign_ids, read_blocks
from features.log.entries import Answer, Batch, Decided, Decision, Outcome, Part
from features.log.erasing import Erasure, Renewed, Traces, find_traces, is_erased
from features.log.opening import open_log
from features.log.reading import (
    find_batch,
    find_decision,
    latest_decision,
    read_catalogue_body,
    read_decisions,
    read_outcomes,
    read_parts,
    read_unmatched,
)
from features.log.register import Preference
from features.log.shared import SharedLog
from features.log.writer import DecisionLog

__all__ = [
    "Answer",
    "Batch",
    "Block",
    "Contact",
    "Decided",
    "Decision",
    "DecisionLog",
    "Erasure",
    "Log",
    "Outcome",
    "Part",
    "Preference",
    "Renewed",
    "Seen",
    "SharedLog",
    "Spending",
    "Traces",
    "campaign_ids",
    "find_batch",
    "find_decision",
    "find_traces",
    "is_erased",
    "latest_decision",
    "open_log",
    "read_blocks",
    "read_catalogue_body",
    "read_decisions",
    "read_outcomes",
    "read_parts",
    "read_unmatched",
]
