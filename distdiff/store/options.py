"""The storage options among the `expansion` keys. No storage option changes which images are made."""

from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig

from distdiff.store.encoding import JPEG_QUALITY, ImageEncoding

IMAGEFOLDER = "imagefolder"


@dataclass(frozen=True)
class StorageOptions:
    """How images are stored.

    `shard_size` is the number of images per shard, or None for formats without shards. `ImageEncoding` explains
    `quality` and `save_size`.
    """

    format: str = IMAGEFOLDER
    image_format: str = "png"
    quality: int | None = None
    save_size: int | None = None
    shard_size: int | None = None

    @classmethod
    def of(cls, config: DictConfig) -> "StorageOptions":
        """The options that the `expansion` keys give, with defaults filled in.

        Two configurations that store images in the same way therefore give equal options.
        """
        keys = config.expansion
        quality = JPEG_QUALITY if keys.image_format == "jpeg" and keys.quality is None else keys.quality
        return cls(
            format=keys.format,
            image_format=keys.image_format,
            quality=quality,
            save_size=None if keys.save_size == config.generator.resolution else keys.save_size,
            shard_size=None if keys.format == IMAGEFOLDER else keys.shard_size,
        )

    @property
    def encoding(self) -> ImageEncoding:
        return ImageEncoding(self.image_format, self.quality, self.save_size)

    @property
    def words(self) -> str:
        """The options that differ from the defaults, as part of a name: `parquet-jpeg95`.

        The text is empty for PNG files in folders.
        """
        by_folders, encoding = self.format == IMAGEFOLDER, self.encoding
        lossless = encoding.image_format if encoding.quality is None and encoding.image_format != "png" else ""
        return "-".join(filter(None, ("" if by_folders else self.format, lossless, encoding.words)))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
