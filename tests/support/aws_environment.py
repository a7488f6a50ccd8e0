"""Replaces the environment variables and shared files that AWS clients read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


class AwsEnvironment:
    """The environment of AWS clients, empty at first; `set` and `write` fill it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._config = folder / "config"
        self.folder = folder
        for name in os.environ:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        self.set(
            HOME=str(folder),
            AWS_CONFIG_FILE=str(self._config),
            AWS_SHARED_CREDENTIALS_FILE=str(folder / "credentials"),
            AWS_EC2_METADATA_DISABLED="true",
        )

    def set(self, **variables: str) -> None:
        """Sets environment variables."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def set_keys(self, key: str = "local") -> None:
        """Sets a static access key."""
        self.set(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=key)

    def write(self, text: str) -> None:
        """Writes the shared configuration file."""
        self._config.write_text(text)
