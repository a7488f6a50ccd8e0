"""Spans and metrics of OpenTelemetry, as its SDK collects them."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ragcrawl_dynamo import (
    Claim,
    DynamoDBBackend,
    DynamoDBConfig,
    LeaseLostError,
    MissingExtraError,
    TableNotFoundError,
    telemetry,
)
from ragcrawl_dynamo.testing import ManualClock, drop_tables
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_version


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(spans))
    return made


@on_dynamodb_local
async def test_telemetry_observer_records_a_span_and_metrics_of_each_request(
    dynamodb_config: DynamoDBConfig,
    spans: InMemorySpanExporter,
    provider: TracerProvider,
    reader: InMemoryMetricReader,
) -> None:
    observe = telemetry.observer(provider, MeterProvider([reader]))
    async with DynamoDBBackend(dynamodb_config, on_request=observe) as backend:
        with provider.get_tracer("test").start_as_current_span("crawl") as parent:
            await asyncio.gather(*(backend.save_page(make_page(f"p{i}")) for i in range(20)))
            await backend.count_pages("site")
    table = f"{dynamodb_config.table_prefix}pages"
    written = [span for span in spans.get_finished_spans() if span.name == f"BatchWriteItem {table}"]
    (span,) = written
    assert span.kind is SpanKind.CLIENT
    assert span.attributes is not None
    assert span.attributes["db.system.name"] == "aws.dynamodb"
    assert (span.attributes["db.operation.batch.size"], span.attributes["ragcrawl_dynamo.write_units"]) == (
        20,
        40,
    )
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < span.end_time - span.start_time < 60e9
    metrics = points(reader)
    sizes = [
        point
        for point in metrics["ragcrawl_dynamo.request.items"]
        if point.attributes["db.operation.name"] == "BatchWriteItem"
    ]
    assert [(point.sum, point.count) for point in sizes] == [(20, 1)]
    units = {
        point.attributes["db.operation.name"]: point.value for point in metrics["ragcrawl_dynamo.write_units"]
    }
    assert units["BatchWriteItem"] == 40
    assert sum(point.value for point in metrics["ragcrawl_dynamo.read_units"]) > 0
    assert sum(point.count for point in metrics["db.client.operation.duration"]) == sum(
        point.value for point in metrics["ragcrawl_dynamo.requests"]
    )


@on_dynamodb_local
async def test_telemetry_observer_records_a_failure(
    dynamodb_config: DynamoDBConfig,
    spans: InMemorySpanExporter,
    provider: TracerProvider,
    reader: InMemoryMetricReader,
) -> None:
    observe = telemetry.observer(provider, MeterProvider([reader]))
    async with DynamoDBBackend(dynamodb_config, on_request=observe) as backend:
        await drop_tables(dynamodb_config)
        spans.clear()
        with pytest.raises(TableNotFoundError):
            await backend.get_page("site", "page")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ResourceNotFoundException"


def test_import_of_the_package_loads_nothing_optional() -> None:
    code = (
        "import sys, ragcrawl_dynamo, ragcrawl_dynamo.iam, ragcrawl_dynamo.templates\n"
        "import ragcrawl_dynamo.testing\n"
        "optional = {'opentelemetry', 'typer', 'rich', 'pyarrow', 'moto', 'fastapi', 'pytest', 'flask'}\n"
        "print(sorted(optional & {name.partition('.')[0] for name in sys.modules}))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


async def test_telemetry_lease_observer_counts_each_lost_lease_once(
    dynamodb_config: DynamoDBConfig, reader: InMemoryMetricReader
) -> None:
    clock = ManualClock()
    count = telemetry.lease_observer(MeterProvider([reader]))

    def observe(claim: Claim) -> None:
        count(claim)
        raise ValueError("what an observer raises harms nobody")

    async with DynamoDBBackend(dynamodb_config, clock=clock, on_lease_lost=observe) as backend:
        frontier = backend.frontier("site", "run")
        await frontier.add([f"https://a.example/{i}" for i in range(4)])
        renewed, completed, committed, kept = await frontier.claim(4, lease_seconds=60)
        await frontier.complete(kept)
        # What its own worker has finished was not lost.
        with pytest.raises(LeaseLostError):
            await frontier.renew(kept, lease_seconds=9)
        clock.advance(100)
        assert len(await frontier.claim(4)) == 3
        for lost in (
            frontier.renew(renewed, lease_seconds=9),
            frontier.complete(renewed),
            frontier.complete(completed),
        ):
            with pytest.raises(LeaseLostError):
                await lost
        page = make_page(url=committed.item.url)
        version = make_version(run_id="run")
        for _ in range(2):
            with pytest.raises(LeaseLostError):
                await backend.commit_page(page, version, claim=committed)
    (point,) = points(reader)["ragcrawl_dynamo.leases_lost"]
    assert (point.value, dict(point.attributes)) == (3, {"ragcrawl_dynamo.site_id": "site"})


def test_telemetry_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "ragcrawl_dynamo.telemetry")
    with pytest.raises(MissingExtraError, match=r"telemetry needs .*'ragcrawl-dynamo\[otel\]'"):
        importlib.import_module("ragcrawl_dynamo.telemetry")
