"""Defines marks for tests that make sense on one engine only."""

import pytest

# Marks tests that are concurrent, large or measured in capacity units: moto is neither atomic nor fast, and
# its capacity units are made up.
on_dynamodb_local = pytest.mark.parametrize("dynamodb_endpoint", ["dynamodb-local"], indirect=True)

# Marks tests of features that DynamoDB Local does not have: continuous backups, tags.
on_moto = pytest.mark.parametrize("dynamodb_endpoint", ["moto"], indirect=True)
