"""The zoo: `python -m cion_jax.models` lists every backbone; nothing is compiled, so it takes seconds."""

from __future__ import annotations

from cion_jax.models import abstract, flops, names

COLUMNS = ("backbone", "parameters/M", "multiply-adds/G", "features", "config")


def row(name: str) -> tuple[str, str, str, str, str]:
    """A backbone's cells: parameters in millions, multiply-adds of a 256x128 image in thousands of millions."""
    module = abstract(name)
    size, work = flops.parameters(module) / 1e6, flops.multiply_adds(module) / 1e9
    return name, f"{size:.2f}", f"{work:.2f}", str(module.features), f"configs/pretrain.py:{name}"


def line(cells: tuple[str, ...]) -> str:
    """One line of the listing."""
    name, *numbers, config = cells
    return f"{name:18}" + "".join(f"{cell:>17}" for cell in numbers) + f"  {config}"


def main() -> None:
    """Prints the listing."""
    print(line(COLUMNS))
    for name in names():
        print(line(row(name)), flush=True)


if __name__ == "__main__":
    main()
