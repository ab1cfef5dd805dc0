"""Flux's own expected values, each run through what a user of fluxc would write.

A module here holds the runners of a family of cases; importing it enters them in `cases.RUNNERS`.
"""
