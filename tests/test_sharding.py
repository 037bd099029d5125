"""Meshes and sharding rules."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from cion_jax import sharding
from cion_jax.config import MeshConfig
from cion_jax.typed import ConfigError


def test_minus_one_takes_what_is_left():
    mesh = sharding.make_mesh(MeshConfig(data=-1, fsdp=2, model=2))
    assert dict(mesh.shape) == {"data": len(jax.devices()) // 4, "fsdp": 2, "model": 2}


@pytest.mark.parametrize("config", [MeshConfig(3, 1, 1), MeshConfig(-1, 3, 1), MeshConfig(-1, 16, 1)])
def test_a_mesh_that_does_not_fit_raises(config):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        sharding.make_mesh(config)


def test_rules():
    mesh = sharding.make_mesh(MeshConfig(2, 2, 2))
    assert sharding.spec("student/params/head/last_layer/weight_v", (256, 64), mesh) == P(None, "model")
    assert sharding.spec("opt_state/1/mu/backbone/conv1/kernel", (7, 7, 3, 64), mesh) == P(None, None, None, "fsdp")
    assert sharding.spec("centre", (64,), mesh) == P("model")
    assert sharding.spec("student/params/backbone/bn1/scale", (64,), mesh) == P(None)


def test_a_parameter_without_rule_raises():
    with pytest.raises(ConfigError, match=r"no sharding rule covers student/params/backbone/mystery \(3,\)"):
        sharding.spec("student/params/backbone/mystery", (3,), sharding.make_mesh(MeshConfig()))


def test_an_axis_that_does_not_divide_raises():
    with pytest.raises(ConfigError, match=r"kernel \(3, 5\) cannot be split into 8 along fsdp"):
        sharding.spec("a/kernel", (3, 5), sharding.make_mesh(MeshConfig(1, 8, 1)))
