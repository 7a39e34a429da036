"""The doctors who can be offered, read from CSV or FHIR."""
