"""What a step needs, before paying: collectives counted by hand, a plan for eight CPU devices."""

import json
import re
import subprocess
import sys

import pytest

from cion_jax.common.typed_config import ConfigError
from cion_jax.distributed import ahead, hlo_collectives
from configs import demo

PROTOTYPES = demo.get_config().model.prototypes
# What each of n devices sends for b bytes: gather b (n - 1) / n, scatter the same of n times its result, reduce both.
PROGRAM = """
  %ag = f32[8,100]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %ar = (bf16[50]{0}, f32[25]{0}) all-reduce(%y, %z), replica_groups=[2,4]<=[8], to_apply=%add
  %rs = f32[10]{0} reduce-scatter(%w), replica_groups={{0,1}}, dimensions={0}
  %cp = u8[7]{0} collective-permute(%v), source_target_pairs={{0,1},{1,0}}
  %start = (f32[25]{0}, f32[100]{0}) all-gather-start(%u), replica_groups=[1,4]<=[4], dimensions={0}
  %done = f32[100]{0} all-gather-done(%start)
  %mesh = f32[10]{0} all-reduce(%t), replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([4,2]T(1,0)) {'a','c':(1)2}
  %other = f32[100]{0} add(%u, %u), metadata={op_name="all-gather(x)"}
"""


def test_collectives_by_hand():
    assert hlo_collectives.of_program(PROGRAM) == {
        "all-gather": (2, 3200 * 3 // 4 + 400 * 3 // 4),
        "all-reduce": (2, 2 * 200 * 3 // 4 + 2 * 40 * 7 // 8),
        "collective-permute": (1, 7),
        "reduce-scatter": (1, 40),
    }


@pytest.mark.parametrize("topology", ["v5e", "v5e:3x3", "v7:2x2", "cpu:0", "cpu", "h200", "h200:3"])
def test_a_wrong_topology_lists_the_right_ones(topology):
    with pytest.raises(ConfigError, match=r"v5e: 1x1 2x2 2x4 4x4 .*v5p: 2x2x1.*h200: 1 2 4 8"):
        ahead.devices_of(topology)


@pytest.mark.parametrize(("topology", "needs"), [("v5e:2x2", "libtpu"), ("h200:8", "CUDA packages, a GPU it does not")])
def test_what_compiles_for_a_chip_is_asked_for(topology, needs, monkeypatch):
    monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"--topology={topology} needs .*{needs}"):
        ahead.devices_of(topology)


@pytest.mark.slow
@pytest.mark.skipif(not ahead.cuda_version(), reason="JAX's CUDA packages are not installed")
def test_a_plan_for_a_gpu_that_is_not_there():
    command = [sys.executable, "-m", "cion_jax.plan", "--config=configs/demo.py", "--topology=h200:2", "--breakdown"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for said in ("on h200:2: 2 devices", ", fits", "all-reduce", "largest batch", "optimizer"):
        assert said in done.stdout


def planned(*flags):
    """Output and errors of the command."""
    command = [sys.executable, "-m", "cion_jax.plan", "--topology=cpu:1", "--largest_batch=false", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout, done.stderr


def test_what_the_data_would_tell_is_asked_for(tmp_path):
    config = "--config=configs/finetune/market_small.py:resnet18"
    assert re.search(
        r"error: --config.data.path is not given, .* supervised needs it or .* --config.model.classes",
        planned(config)[1],
    )
    assert f"config.data.path={tmp_path}/none is no folder" in planned(config, f"--config.data.path={tmp_path}/none")[1]
    assert planned(config, "--config.model.classes=5")[0].startswith("resnet18 on cpu:1")


def test_a_plan_for_eight_devices(tmp_path):
    """The command itself: it sets the number of devices before JAX starts."""
    small = ["model.hidden=64", "model.bottleneck=16", "mesh.model=2", "data.batch_size=96"]
    command = [sys.executable, "-m", "cion_jax.plan", "--config=configs/demo.py", "--topology=cpu:8"]
    command += [f"--config.{setting}" for setting in small]
    done = subprocess.run(
        [*command, "--breakdown", f"--json={tmp_path}/plan.json", f"--shardings={tmp_path}/lines"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "plan.json").read_text())
    assert (found["devices"], found["mesh"]) == (8, {"data": 4, "fsdp": 1, "model": 2})
    # ResNet-18-IBN, then 512 x 64, 64 x 64 and 64 x 16 with biases, then P columns and their norms.
    assert found["parameters"] == 11_176_512 + 513 * 64 + 65 * 64 + 65 * 16 + 17 * PROTOTYPES
    # The gradients of all that is whole on a device are summed over four: 1.5 times their bytes; that of half of the
    # prototypes likewise.
    gradients = 4 * (found["parameters"] - 17 * PROTOTYPES + 16 * PROTOTYPES // 2)
    assert 1.5 * gradients < found["collectives"]["all-reduce"][1] < 1.6 * gradients
    # A view is looked for among the teacher's embeddings of the whole batch: 96 images, 2 views, 16 floats, three
    # quarters of them from others.
    assert found["collectives"]["all-gather"] == [1, 96 * 2 * 16 * 4 * 3 // 4]
    assert found["fits"] is None
    # All convolutions of the backbone are in it, three times as much as forward for the student.
    assert found["unknown_loops"] == 0
    parts = found["breakdown"]
    assert sum(size for size, _ in parts.values()) == found["bytes"]
    assert {"views", "norm", "head", "loss", "optimizer"} <= parts.keys()
    assert 0.9 < sum(flops for _, flops in parts.values()) / found["flops"] < 1.1
    # The optimizer reads a parameter, its gradient, two moments and the teacher's, and writes four of them.
    assert parts["optimizer"][0] > 9 * 4 * (found["parameters"] - 16 * PROTOTYPES // 2)
    assert "optimizer" in done.stdout
    assert "devices" in done.stdout
    assert (
        f"last_layer/weight_v  16x{PROTOTYPES}  None model  {16 * PROTOTYPES // 2 * 4}"
        in (tmp_path / "lines").read_text()
    )
