"""From a call to its triage: rules first, then the model, then who of the two decides."""
