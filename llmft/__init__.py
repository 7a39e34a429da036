"""llmft: from patient/operator calls to a private triage assistant, proven the same at every step."""

__version__ = "0.1.0"
