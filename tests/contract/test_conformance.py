"""The suite that others run on their backends, on ours."""

from ragcrawl_dynamo.testing.conformance import StorageBackendConformance


class TestDynamoDBBackend(StorageBackendConformance):
    """With the fixture `backend` of these tests."""
