"""Given a process on Ray that listens anywhere, then it is reached where Ray finds its node."""

from __future__ import annotations

import pytest

from eventmesh.runtime.on_ray.directory import node_address
from eventmesh.runtime.wire.channel import ANYWHERE, Access


def test_who_listens_anywhere_is_reached_where_ray_finds_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")  # as a fresh Debian has it
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.7")
    assert Access("a secret", ANYWHERE, node_address).reached_at == "192.0.2.7"
    assert Access().reached_at == "127.0.0.1"
