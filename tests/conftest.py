"""What the tests say at the end of a run, and that two runs of one tree draw the same examples."""

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business: it may be shared.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

COUNTS = "random programs"
"""The property by which a test counts them: (how many it compared, how many were trivial)."""


def pytest_terminal_summary(terminalreporter):
    """How many random programs were compared, and how many of them computed something of note."""
    passed = terminalreporter.stats.get("passed", [])
    counts = [n for report in passed for name, n in report.user_properties if name == COUNTS]
    if counts:
        compared, trivial = map(sum, zip(*counts, strict=True))
        share = 1 - trivial / compared
        terminalreporter.write_line(f"random programs: {compared}, {share:.1%} of them non-trivial")
