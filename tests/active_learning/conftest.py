"""A review queue and an inbox on a fresh ledger."""

from __future__ import annotations

import pytest

from active_learning.inbox import Inbox
from active_learning.queue import ReviewQueue
from core.images import ImageStore


@pytest.fixture
def images(tmp_path):
    return ImageStore(tmp_path / "images")


@pytest.fixture
def queue(ledger, images):
    return ReviewQueue(ledger, images, project="Rollmark", config_revision="c1", who="app")


@pytest.fixture
def inbox(ledger):
    return Inbox(ledger, project="Rollmark", who="pull")
