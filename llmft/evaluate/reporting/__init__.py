"""``report.html``: what a medical director reads before deciding, then what an engineer looks up."""
