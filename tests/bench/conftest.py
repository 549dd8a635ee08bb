"""Rivals' scripts run in an environment of their own; here their libraries are not there to be imported."""

collect_ignore = ["oracles"]
