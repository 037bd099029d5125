"""What pyproject.toml cannot say: configs/, at the top of the checkout, is installed as cion_jax/configs."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["cion_jax*", "data_prep*"]),
        "cion_jax.configs",
        "cion_jax.configs.finetune",
        "cion_jax.configs.cluster",
    ],
    package_dir={
        "cion_jax.configs": "configs",
        "cion_jax.configs.finetune": "configs/finetune",
        "cion_jax.configs.cluster": "configs/cluster",
    },
)
