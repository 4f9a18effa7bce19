"""Durable workflows, states, rules."""
