"""`infosam report`: one self-contained page about a sweep, or about several side by side."""

REPORT = "report.html"
"""Of one sweep, in its folder."""
