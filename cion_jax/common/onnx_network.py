"""Any network of images in ONNX form, on the CPU: `FILE?OPTIONS`, with files that it keeps weights in beside it."""

from __future__ import annotations

from cion_jax.common import image_options, onnx_files, onnx_session
from cion_jax.common.image_network import ImageNetwork, Input

_DTYPES = {"float16": "float16", "float": "float32", "double": "float64", "uint8": "uint8"}


class OnnxNetwork(ImageNetwork):
    """Images -> features; see `ImageNetwork`."""

    def __init__(self, argument: str, flag: str, extra: str):
        """Opens the file.

        Args:
          argument: FILE?OPTIONS, see `image_options`.
          flag: how it is given, for messages, like `--embedder=onnx:FILE`.
          extra: the extra of this package that installs ONNX Runtime.

        Raises:
          ImageNetworkError, OnnxError: it or a file it refers to is missing or unusable.
        """
        file, how = image_options.parse(argument, flag)
        digest = onnx_files.digest(file)
        session = onnx_session.opened(file, flag, extra)
        output = session.outputs[image_options.output_of(file, session.outputs, how)]
        takes = Input(session.shape, _DTYPES.get(session.dtype, session.dtype))
        super().__init__(f"onnx:{argument}", digest, takes, lambda x: session.run(x, output), how)
