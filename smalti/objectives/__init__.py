"""Objectives: named terms, their weights and inputs, and the phases that say who is trained by which terms."""
