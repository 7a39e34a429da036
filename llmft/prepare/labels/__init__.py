"""Labels: checked, derived from rules, imported, and made by people."""
