"""How an expanded image becomes a PNG, JPEG or WebP file of the size that is to be saved."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
JPEG_QUALITY = 95  # used if no quality is given


@dataclass(frozen=True)
class ImageEncoding:
    """The settings of an image file.

    If `quality` is None, the file is lossless (PNG or WebP). `save_size` is the number of pixels per side. If
    `save_size` is None, the image keeps its own size.
    """

    image_format: str = "png"
    quality: int | None = None
    save_size: int | None = None

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.image_format]

    @property
    def words(self) -> str:
        """The settings that change pixels, as part of a name: `jpeg95-256px`.

        Without such settings, the text is empty.
        """
        lossy = "" if self.quality is None else f"{self.image_format}{self.quality}"
        return "-".join(filter(None, (lossy, f"{self.save_size}px" if self.save_size else "")))

    def encode(self, image: Image.Image) -> bytes:
        """The bytes of an image file that holds an RGB image.

        If `save_size` is given, the image is resized with an antialiased Lanczos filter.
        """
        if self.save_size and image.size != (self.save_size, self.save_size):
            image = image.resize((self.save_size, self.save_size), Image.Resampling.LANCZOS)
        options = {"lossless": True} if self.quality is None else {"quality": self.quality}
        file = io.BytesIO()
        image.save(file, format=self.image_format.upper(), **({} if self.image_format == "png" else options))
        return file.getvalue()


def extension_of(file_name: str) -> str:
    """
    >>> extension_of("cat/a.png__0000.jpg")
    'jpg'
    """
    return PurePosixPath(file_name).suffix.removeprefix(".")
