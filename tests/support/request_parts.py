"""Reads requests to DynamoDB, with names and values in the places of their placeholders."""

from __future__ import annotations

import re
from typing import Any


def condition_of(parts: dict[str, Any], expression: str = "ConditionExpression") -> str:
    """Returns a condition of a request as text."""
    names = parts.get("ExpressionAttributeNames", {})
    values = {
        name: str(*value.values()) for name, value in parts.get("ExpressionAttributeValues", {}).items()
    }
    placeholders = {**names, **values}
    return re.sub(r"[#:]\w+", lambda match: placeholders[match[0]], parts[expression])


def written_values(parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the attributes that an update sets, with their values."""
    assignments = re.findall(r"(#\w+) = (:\w+)", parts["UpdateExpression"])
    names, values = parts["ExpressionAttributeNames"], parts["ExpressionAttributeValues"]
    return {names[name]: values[value] for name, value in assignments}


def removed_names(parts: dict[str, Any]) -> list[str]:
    """Returns the attributes that an update removes."""
    _, _, removals = parts["UpdateExpression"].partition("REMOVE ")
    return [parts["ExpressionAttributeNames"][name] for name in re.findall(r"#\w+", removals)]
