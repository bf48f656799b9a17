"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Counters of one server; nothing in them comes from what clients write."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "unireel_http_requests", "HTTP requests", ["method", "route", "status"], registry=registry
        )
        self.latency = Histogram(
            "unireel_http_seconds",
            "until the answer's last byte",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.jobs = Counter("unireel_jobs", "jobs that ended", ["outcome"], registry=registry)
        self.films = Histogram(
            "unireel_batch_seconds", "making one batch of films", buckets=SECONDS, registry=registry
        )
        self.batch = Histogram(
            "unireel_batch_size", "films made together", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.answers = Histogram(
            "unireel_answer_seconds", "a question, from its arrival", buckets=SECONDS, registry=registry
        )
        self.queued = Gauge("unireel_jobs_queued", "jobs that wait", registry=registry)
        self.running = Gauge("unireel_jobs_running", "jobs that are being made", registry=registry)
        self.questions = Gauge("unireel_questions_queued", "questions that wait", registry=registry)
        self.stored = Gauge("unireel_content_bytes", "bytes of finished films", registry=registry)

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
