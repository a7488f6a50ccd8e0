from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]
