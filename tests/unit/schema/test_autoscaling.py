"""Requests to Application Auto Scaling, and its refusals, which no local engine has."""

from typing import Any

import pytest

from ragcrawl_dynamo import (
    DeadlineExceededError,
    DynamoDBBackend,
    DynamoDBConfig,
    RequestRejectedError,
    TableOptions,
)
from ragcrawl_dynamo._dynamodb.client import Access, ClientFactory
from ragcrawl_dynamo._dynamodb.destination import Service
from ragcrawl_dynamo._schema import waiting
from ragcrawl_dynamo._schema.autoscaling import scaled_capacities
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.fake_tables import FakeTables
from tests.support.fakes import FAST, FakeClient, client_error

PROVISIONED = FAST.model_copy(update={"billing_mode": "PROVISIONED", "table_timeout": 5.0})
SCALED = PROVISIONED.model_copy(
    update={"tables": TableOptions(autoscaling_max_read=50, autoscaling_max_write=20, autoscaling_target=60)}
)


class FakeScaling:
    """Application Auto Scaling: remembers targets and policies, and refuses the operations of `refusals`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.targets: dict[tuple[str, str], Any] = {}
        self.policies: dict[tuple[str, str], Any] = {}
        self.refusals: list[tuple[str, str]] = []
        self.client = FakeClient(self._answer)
        factory = Access.factory

        def factory_of(access: Access, service: Service) -> ClientFactory:
            return self.client.factory if service == "Application Auto Scaling" else factory(access, service)

        monkeypatch.setattr(Access, "factory", factory_of)
        monkeypatch.setattr(waiting, "_PAUSE", 0.01)

    def sent(self, operation: str) -> list[Any]:
        return [request for name, request in self.client.requests if name == operation]

    def _answer(self, operation: str, request: Any) -> Any:
        for refusal in self.refusals:
            if refusal[0] == operation:
                self.refusals.remove(refusal)
                raise client_error(refusal[1])
        key = request.get("ResourceId"), request.get("ScalableDimension")
        match operation:
            case "register_scalable_target":
                self.targets[key] = request
            case "put_scaling_policy":
                self.policies[key] = request
            case "describe_scalable_targets":
                targets = [
                    target
                    for target in self.targets.values()
                    if target["ResourceId"] in request["ResourceIds"]
                ]
                # A page has one entry.
                first = int(request.get("NextToken", 0))
                more = {"NextToken": str(first + 1)} if first + 1 < len(targets) else {}
                return {"ScalableTargets": targets[first : first + 1], **more}
            case "describe_scaling_policies":
                return {
                    "ScalingPolicies": [
                        policy
                        for (resource, _), policy in self.policies.items()
                        if resource == request["ResourceId"]
                    ]
                }
        return {}


async def initialize(config: DynamoDBConfig, **options: Any) -> None:
    backend = DynamoDBBackend(config, client_factory=FakeTables(config).client.factory)
    await backend.initialize(**options)
    await backend.close()


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> FakeScaling:
    return FakeScaling(monkeypatch)


def test_scaled_capacities_are_those_of_tables_and_global_indexes() -> None:
    runs = list(scaled_capacities(Tables.of("p_").runs, SCALED))
    assert [capacity.key for capacity in runs] == [
        ("table/p_runs", "dynamodb:table:ReadCapacityUnits"),
        ("table/p_runs", "dynamodb:table:WriteCapacityUnits"),
        ("table/p_runs/index/by_run_id", "dynamodb:index:ReadCapacityUnits"),
        ("table/p_runs/index/by_run_id", "dynamodb:index:WriteCapacityUnits"),
    ]
    assert [capacity.metric for capacity in runs[:2]] == [
        "DynamoDBReadCapacityUtilization",
        "DynamoDBWriteCapacityUtilization",
    ]
    only_writes = PROVISIONED.model_copy(update={"tables": TableOptions(autoscaling_max_write=20)})
    assert [capacity.dimension for capacity in scaled_capacities(Tables.of("p_").sites, only_writes)] == [
        "dynamodb:table:WriteCapacityUnits"
    ]


async def test_initialize_opens_no_client_of_auto_scaling_that_is_not_configured(
    scaling: FakeScaling,
) -> None:
    await initialize(PROVISIONED)
    assert scaling.client.opened == 0


async def test_initialize_registers_every_capacity_once(scaling: FakeScaling) -> None:
    await initialize(SCALED)
    assert (scaling.client.opened, scaling.client.closed) == (1, 1)
    wanted = {
        capacity.key: capacity
        for table in Tables.of("ragcrawl_").all()
        for capacity in scaled_capacities(table, SCALED)
    }
    assert len(wanted) == 18
    assert scaling.targets.keys() == scaling.policies.keys() == wanted.keys()
    key = ("table/ragcrawl_pages/index/by_url", "dynamodb:index:WriteCapacityUnits")
    assert scaling.targets[key] == {
        "ServiceNamespace": "dynamodb",
        "ResourceId": key[0],
        "ScalableDimension": key[1],
        "MinCapacity": 5,
        "MaxCapacity": 20,
    }
    assert scaling.policies[key]["TargetTrackingScalingPolicyConfiguration"] == {
        "TargetValue": 60.0,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "DynamoDBWriteCapacityUtilization"},
    }
    await initialize(SCALED)
    assert len(scaling.sent("register_scalable_target")) == 18
    assert len(scaling.sent("put_scaling_policy")) == 18


async def test_initialize_changes_no_target_that_exists_and_adds_a_missing_policy(
    scaling: FakeScaling,
) -> None:
    await initialize(SCALED)
    by_hand, without_policy = list(scaling.targets)[:2]
    scaling.targets[by_hand]["MaxCapacity"] = 999
    del scaling.policies[without_policy]
    await initialize(SCALED)
    assert scaling.targets[by_hand]["MaxCapacity"] == 999
    assert without_policy in scaling.policies
    assert len(scaling.sent("register_scalable_target")) == 18


async def test_initialize_repeats_requests_for_which_auto_scaling_is_too_busy(scaling: FakeScaling) -> None:
    scaling.refusals = [
        ("register_scalable_target", "ConcurrentUpdateException"),
        ("put_scaling_policy", "ObjectNotFoundException"),
    ]
    await initialize(SCALED)
    assert len(scaling.policies) == 18
    assert scaling.refusals == []


async def test_initialize_ends_at_table_timeout_if_auto_scaling_stays_busy(scaling: FakeScaling) -> None:
    scaling.refusals = [("put_scaling_policy", "ObjectNotFoundException")] * 100_000
    with pytest.raises(
        DeadlineExceededError,
        match=r"RegisterScalableTarget: no capacity limits were set within table_timeout",
    ):
        await initialize(SCALED.model_copy(update={"table_timeout": 0.3}))


async def test_initialize_raises_a_refusal_of_auto_scaling(scaling: FakeScaling) -> None:
    scaling.refusals = [("register_scalable_target", "ValidationException")]
    with pytest.raises(RequestRejectedError, match="Application Auto Scaling says"):
        await initialize(SCALED)
    assert scaling.client.closed == 1


async def test_initialize_names_the_endpoint_of_auto_scaling_in_errors(scaling: FakeScaling) -> None:
    scaling.refusals = [("register_scalable_target", "ValidationException")]
    url = "https://vpce-1-2.dynamodb.us-east-1.vpce.amazonaws.com"
    with pytest.raises(RequestRejectedError, match="at endpoint of AWS"):
        await initialize(SCALED.model_copy(update={"endpoint_url": url}))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDeniedException", "its auto scaling could not be read"),
        ("UnknownOperationException", "this endpoint has no auto scaling"),
        ("InvalidAction", "this endpoint has no auto scaling"),
    ],
)
async def test_initialize_warns_if_auto_scaling_cannot_be_read(
    scaling: FakeScaling, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    scaling.refusals = [("describe_scalable_targets", code)] * 5
    await initialize(SCALED)
    assert caplog.text.count(said) == 5
    assert scaling.targets == {}


async def test_initialize_without_create_tables_asks_auto_scaling_nothing(scaling: FakeScaling) -> None:
    await initialize(SCALED, create_tables=False)
    assert scaling.client.opened == 0


@pytest.mark.parametrize(
    ("url", "scaling_url"),
    [
        (None, None),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://localstack.example:4566", "https://localstack.example:4566"),
        ("https://dynamodb.eu-central-1.amazonaws.com", None),
        ("https://vpce-1-2.dynamodb.cn-north-1.vpce.amazonaws.com.cn", None),
    ],
)
def test_scaling_endpoint_is_that_of_a_simulated_aws_only(
    monkeypatch: pytest.MonkeyPatch, url: str | None, scaling_url: str | None
) -> None:
    def endpoint_of(config: DynamoDBConfig) -> str | None:
        return Access().find_destination(config, "Application Auto Scaling").endpoint_url

    assert endpoint_of(DynamoDBConfig(endpoint_url=url)) == scaling_url
    if url is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        assert endpoint_of(DynamoDBConfig()) == scaling_url
    monkeypatch.setenv("AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING", "https://scaling.example")
    assert endpoint_of(DynamoDBConfig(endpoint_url=url)) == "https://scaling.example"
