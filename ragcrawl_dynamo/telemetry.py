"""Records every request to DynamoDB as OpenTelemetry spans and metrics. It needs the extra `otel`.

    backend = create_storage_backend(
        config, on_request=telemetry.observer(), on_lease_lost=telemetry.lease_observer()
    )

Every request, including retries, is a span of kind client. Its parent is the span that is current where the
request was sent. Metrics have operation, table and error as attributes. Names follow OpenTelemetry's semantic
conventions for databases, where these define a name.

| metric | unit | meaning |
|---|---|---|
| db.client.operation.duration | s | time from sending a request to its answer |
| ragcrawl_dynamo.requests | {request} | all requests; the attribute `ragcrawl_dynamo.retry` marks retries |
| ragcrawl_dynamo.request.items | {item} | items of a request: how well coalescing and bulk calls fill it |
| ragcrawl_dynamo.left_over | {item} | items of a batch that lacked capacity and are sent again |
| ragcrawl_dynamo.read_units | {unit} | consumed read capacity units |
| ragcrawl_dynamo.write_units | {unit} | consumed write capacity units |
| ragcrawl_dynamo.leases_lost | {lease} | leases that had ended before they were used, by site |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ragcrawl_dynamo._dynamodb.metrics import Observer, RequestEvent
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver
from ragcrawl_dynamo.errors import MissingExtraError

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, StatusCode
except ModuleNotFoundError:
    raise MissingExtraError("ragcrawl_dynamo.telemetry", "otel") from None

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["lease_observer", "observer"]

_NAME = "ragcrawl_dynamo"


def observer(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Observer:
    """Creates an observer of requests, to pass as `on_request`.

    Args:
        tracer_provider: The provider that gets the spans; the global one by default.
        meter_provider: The provider that gets the measurements; the global one by default.
    """
    tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
    meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
    duration = meter.create_histogram("db.client.operation.duration", "s", "Duration of requests")
    items = meter.create_histogram(f"{_NAME}.request.items", "{item}", "Items of a request")
    requests = meter.create_counter(f"{_NAME}.requests", "{request}", "Requests, retries included")
    left_over = meter.create_counter(f"{_NAME}.left_over", "{item}", "Items that lacked capacity")
    read_units = meter.create_counter(f"{_NAME}.read_units", "{unit}", "Read capacity units consumed")
    write_units = meter.create_counter(f"{_NAME}.write_units", "{unit}", "Write capacity units consumed")

    def observe(event: RequestEvent) -> None:
        attributes = {"db.system.name": "aws.dynamodb", "db.operation.name": event.operation}
        if event.table:
            attributes["db.collection.name"] = event.table
        if event.error is not None:
            attributes["error.type"] = event.error
        ended = time.time_ns()
        span = tracer.start_span(
            f"{event.operation} {event.table}".strip(),
            kind=SpanKind.CLIENT,
            start_time=ended - int(event.seconds * 1e9),
            attributes={
                **attributes,
                "db.operation.batch.size": event.items,
                f"{_NAME}.attempt": event.attempt,
                f"{_NAME}.read_units": event.read_units,
                f"{_NAME}.write_units": event.write_units,
            },
        )
        if event.error is not None:
            span.set_status(StatusCode.ERROR, event.error)
        span.end(ended)
        duration.record(event.seconds, attributes)
        items.record(event.items, attributes)
        requests.add(1, {**attributes, f"{_NAME}.retry": event.attempt > 1})
        for counter, amount in (
            (left_over, event.left_over),
            (read_units, event.read_units),
            (write_units, event.write_units),
        ):
            if amount:
                counter.add(amount, attributes)

    return observe


def lease_observer(meter_provider: MeterProvider | None = None) -> LeaseObserver:
    """Creates an observer of lost leases, to pass as `on_lease_lost`.

    Args:
        meter_provider: The provider that gets the count; the global one by default.
    """
    meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
    lost = meter.create_counter(f"{_NAME}.leases_lost", "{lease}", "Leases that had ended before their use")

    def observe(claim: Claim) -> None:
        lost.add(1, {f"{_NAME}.site_id": claim.item.site_id})

    return observe
