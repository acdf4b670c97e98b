"""Where the tests run: the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout that these tests are part of."""
