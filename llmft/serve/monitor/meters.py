"""Counters and clocks of one service, in a registry of its own; packaging/alerts.yaml reads them by these names."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmft.serve.triage.shapes import Triage

FAST = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
SLOW = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True)
class Meters:
    """What is counted."""

    registry: CollectorRegistry
    requests: Counter
    request_s: Histogram
    answers: Counter
    invalid: Counter
    waited_s: Histogram
    generated_s: Histogram
    first_word_s: Histogram
    red_flags: Counter
    feedback: Counter
    under_triage: Counter
    refused: Counter
    waiting: Gauge
    running: Gauge
    drift: Gauge
    model: Gauge

    def answered(self, triage: Triage) -> None:
        """Count an answer."""
        self.answers.labels(triage.urgency.id, triage.decided_by, str(triage.abstained).lower()).inc()
        if not triage.model_said.valid:
            self.invalid.inc()
        self.waited_s.observe(triage.waited_s)
        self.generated_s.observe(triage.generated_s)

    def text(self) -> bytes:
        """The registry in Prometheus' text form."""
        return generate_latest(self.registry)


def new_meters() -> Meters:
    """All counters at zero."""
    registry = CollectorRegistry()

    def counter(name: str, what: str, *labels: str) -> Counter:
        return Counter(f"llmft_{name}", what, labels, registry=registry)

    def clock(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"llmft_{name}_seconds", what, labels, buckets=buckets, registry=registry)

    def gauge(name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"llmft_{name}", what, labels, registry=registry)

    return Meters(
        registry=registry,
        requests=counter("requests", "HTTP requests", "method", "route", "status"),
        request_s=clock("request", "time to the first byte, generation left out", FAST, "route"),
        answers=counter("answers", "triages given", "urgency", "decided_by", "abstained"),
        invalid=counter("answers_invalid", "triages for which the model wrote no valid block"),
        waited_s=clock("queue", "time in the line for the model", SLOW),
        generated_s=clock("generation", "time to write an answer", SLOW),
        first_word_s=clock("first_word", "time from the request to the first word", SLOW),
        red_flags=counter("red_flags", "red flags raised by the rules", "flag", "urgency"),
        feedback=counter("feedback", "judgements of operators", "action"),
        under_triage=counter("under_triage", "answers that a human found too little urgent"),
        refused=counter("refused", "requests refused", "code"),
        waiting=gauge("queue_waiting", "requests in the line for the model"),
        running=gauge("queue_running", "answers being written"),
        drift=gauge("drift_psi", "population stability index against the reference", "what"),
        model=gauge("model_info", "1 for the model in service", "name", "sha256", "backend"),
    )
