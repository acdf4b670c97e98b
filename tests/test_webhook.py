"""The webhook as kube-apiserver and the kubelet meet it: TLS, who may call, discovery, and what cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kubernetes.cluster import FakeCluster, fake_cluster
from tests.kubernetes.front_proxy import AGGREGATED, AVAILABILITY, FrontProxy


@dataclass(frozen=True, slots=True)
class Webhook:
    cluster: FakeCluster
    port: int
    proxy: FrontProxy


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with fake_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def served(cluster: FakeCluster) -> AsyncIterator[Webhook]:
    async with cluster.webhook() as port, cluster.front_proxy(port) as proxy:
        yield Webhook(cluster, port, proxy)


async def test_availability(served: Webhook) -> None:
    """Five parallel checks of kube-apiserver succeed."""
    assert await served.proxy.is_available("/apis/acme.responder.dev/v1alpha1")
    r = await served.proxy.get("/apis", AVAILABILITY, ("Accept", AGGREGATED))
    assert 200 == r.status
    print(r)
