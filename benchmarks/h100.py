"""Compiles a training step for an H100, on a machine without one, and counts what it launches and moves.

    python -m benchmarks.h100 image text listops pathfinder pathx s4d
    python -m benchmarks.h100 image --baseline
    python -m benchmarks.h100 image --config.model.remat=pointwise --config.model.unroll=false

XLA can compile for a GPU from a description alone. That needs jax's CUDA plugin, in the version of jax, but no CUDA
toolkit and no driver (tried with jax 0.12). Use an environment of its own: with the plugin, jax looks for a GPU when it
starts.

    pip install -r requirements.txt
    version=$(python -c 'import jax; print(jax.__version__)')
    pip install --no-deps jax-cuda13-plugin==$version jax-cuda13-pjrt==$version

The counts are those of the program: launches, and the bytes that its instructions read and write. Autotuning, which
needs the device, is off, and matrix products go to cuBLAS. Bytes divided by bandwidth estimate the time of a step;
caches can make it shorter, and each iteration of a loop costs a launch from the host.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from benchmarks import hlo

__all__ = ["Compiled", "compile_for_h100", "main", "training_step"]

BANDWIDTH = 3.0e12
"""Bytes per second that an H100 copies, about 0.9 of what its data sheet says."""

DEVICE: dict[str, float] = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 232448,
    "shared_memory_per_core": 233472,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "l2_cache_size": 52428800,
    "memory_bandwidth": 3352320000000,
    "device_memory_size": 84929347584,
}
"""An H100 with 80 GB of HBM3, as XLA describes it (openxla/xla, xla/backends/gpu/target_config/specs)."""


def description() -> str:
    """The target of compilation, as the protocol buffer `GpuTargetConfigProto` in text."""
    fields = " ".join(f"{name}: {value}" for name, value in DEVICE.items())
    return (
        f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: 9 }} }}"
        ' platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 } runtime_version { major: 13 }'
        ' device_description_str: "NVIDIA H100 80GB HBM3"'
    )


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program. scratch: bytes in addition to arguments and results. seconds: to trace and compile."""

    text: str
    scratch: int
    seconds: float

    @property
    def totals(self) -> hlo.Totals:
        return hlo.totals(self.text)


def compile_for_h100(
    function: Callable[..., Any], *arguments: Any, donate: bool = False, devices: int = 1, divided: tuple[int, ...] = ()
) -> Compiled:
    """Compiles a function for one H100 or for several, on which code that asks for its platform finds a GPU.

    Args:
      function: any function.
      arguments: arrays, or their shapes and types (`jax.ShapeDtypeStruct`).
      donate: the results reuse the memory of the first argument.
      devices: number of GPUs, with an axis "data" over them.
      divided: places of the arguments that are divided over the devices along their first axis; the others, and the
        results, are whole on each.
    """
    import jax
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    topology = topologies.get_topology_desc(platform="cuda", target_config=description(), topology=f"1x1x{devices}")
    mesh = topologies.make_mesh(topology, (devices,), ("data",))
    whole, shares = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    placed = [
        jax.tree.map(
            lambda x, to=shares if i in divided else whole: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), x
        )
        for i, x in enumerate(arguments)
    ]
    begin = time.perf_counter()
    with _as_if_on_gpus(), jax.set_mesh(mesh):
        jitted = jax.jit(function, donate_argnums=(0,) if donate else (), out_shardings=whole)
        compiled = jitted.lower(*placed).compile()
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text()
    assert text is not None
    return Compiled(text, memory.temp_size_in_bytes, time.perf_counter() - begin)


@contextlib.contextmanager
def _as_if_on_gpus() -> Iterator[None]:
    import jax

    from s5jax.ssm import scan_kernel

    # What Pallas asks of the GPU that it lowers a kernel for.
    gpu_info = importlib.import_module("jax._src.pallas.triton.gpu_info")
    information = gpu_info._get_gpu_info_impl(gpu_info.GpuVersion.H100)
    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(scan_kernel, "compiles", return_value=True),
        mock.patch.dict(gpu_info.registry, {"cpu": lambda: information}),
    ):
        yield


def training_step(name: str, *overrides: str, baseline: bool = False) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """The training step of a case of `cases.COUNTED` and its arguments, a state and a batch of the recipe's size."""
    from benchmarks import cases

    case = cases.build(name, None, *overrides)
    side = cases.published(case) if baseline else cases.ours(case)
    return side.train, (side.state, side.batch)


def main() -> int:
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), "--xla_gpu_autotune_level=0", "--xla_gpu_enable_triton_gemm=false"]
    )
    from benchmarks.cases import COUNTED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=COUNTED, metavar="CASE", help=", ".join(COUNTED))
    parser.add_argument("--baseline", action="store_true", help="of the published algorithm, in benchmarks/baseline.py")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each case")
    arguments, overrides = parser.parse_known_args()
    for name in arguments.cases:
        step, given = training_step(name, *overrides, baseline=arguments.baseline)
        compiled = compile_for_h100(step, *given, donate=True)
        found = compiled.totals
        launches = sum(found.launches.values())
        if arguments.json:
            numbers = {"launches": launches, "bytes": found.bytes, "passes": found.passes, "scratch": compiled.scratch}
            print(json.dumps({"case": name, **numbers}), flush=True)
            continue
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.launches.most_common(6))
        print(
            f"{name}: {launches} launches, {found.passes} passes of loops, {found.bytes / 1e9:.1f} GB"
            f" ({1e3 * found.bytes / BANDWIDTH:.1f} ms at 3 TB/s), scratch {compiled.scratch / 1e9:.2f} GB,"
            f" compiled in {compiled.seconds:.0f} s\n  {kinds}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
