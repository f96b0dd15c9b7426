"""Measures how fast images are read and fitted, compared with a bare Pillow loop over the same files.

    python experiments/studies/reading_speed.py [--folder <folder of class folders>] [--repeats 7]

Our reader and the loop (in as many processes as our reader has workers) take turns, so that other work on the machine
disturbs both. They read a synthetic folder of 1,500 JPEGs of about 500x375 and, if given, the images of `--folder`. The
study then measures how much reducing JPEGs while they are decoded changes the pixels and saves time; how long it takes to
identify the same files the first and the second time; and how long until the first training batch is ready, with and
without the image cache. It writes experiments/results/reading_speed.md.
"""

import argparse
import io
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[2]
SIZES, JPEGS, WORKERS = (224, 64), 1500, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a folder of class folders")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=int, default=JPEGS, help="at most this many images of a folder are timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="distdiff-reading-") as scratch:
        made = synthetic(Path(scratch) / "synthetic", JPEGS)
        folders = {f"{JPEGS:,} synthetic JPEGs of about 500x375": made}
        if options.folder:
            folders[options.folder.name] = options.folder
        parts = [speeds(folders, options.repeats, options.images)]
        parts.append(reduction(options.folder))
        for name, folder in folders.items():
            parts.append(second_time(name, folder, Path(scratch)))
    text = "\n\n".join([heading(), *parts]) + "\n"
    (ROOT / "experiments/results/reading_speed.md").write_text(text, encoding="utf-8")
    print(text)


def heading() -> str:
    command = " ".join([str(Path(__file__).resolve().relative_to(ROOT)), *sys.argv[1:]])
    load = os.getloadavg()[0]
    shared = "shared with other work while this ran" if load > WORKERS + 0.5 else "nothing else ran"
    return (
        f"# How fast images are read\n\nOutput of `python {command}` on {os.cpu_count()} cores ({platform.machine()}, Pillow "
        f"{Image.__version__}, load {load:.1f} at the end: {shared})."
    )


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Blotches of colour under noise, with about as much detail for a decoder as a photo has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.integers(-12, 13, (height, width, 1))).clip(0, 255).astype(np.uint8))


def synthetic(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class_{number % 10}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = rng.integers(440, 561), rng.integers(340, 411)
        photo(int(width), int(height), number).save(path, quality=90)
    return folder


# Our reader and a bare loop


def bare(paths: Sequence[str], size: int) -> int:
    """Opens, converts and fits each image and makes an array of it; returns the number of images."""
    for path in paths:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        np.asarray(fitted).copy()
    return len(paths)


def speeds(folders: dict[str, Path], repeats: int, most: int) -> str:
    from distdiff.data.sources.imagefolder import read_class_folders

    lines = [
        f"## Our reader and a bare Pillow loop in {WORKERS} processes",
        "",
        "Our reader and the loop both open each image, convert it, crop it to a square with Lanczos resampling and make an "
        f"array. *Ours* is our reader with `num_workers={WORKERS}` and without any cache; its repeats alternate with those of "
        f"the *loop*. Each speed is the median of {repeats} repeats, in images per second. *Not reduced* is our reader when it "
        "decodes JPEGs whole, as the loop does. *Ratio* is our speed divided by the speed of the loop: the median (least to "
        "greatest) of the ratios of all repeats.",
        "*Best* is the highest speed of our reader divided by the highest speed of the loop. The fastest "
        "repeats are those that other work disturbed least.",
        "",
        "| files | size | ours | not reduced | loop | ratio | ratio, not reduced | best | best, not reduced |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    spawn = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=spawn) as pool:
        for name, folder in folders.items():
            images = read_class_folders(str(folder))
            images = images.select(np.linspace(0, len(images) - 1, min(most, len(images))).astype(int))
            images = replace(images, options=replace(images.options, num_workers=WORKERS))
            paths = [str(images.file(int(index))) for index in images.indices]
            for size in SIZES:
                whole = replace(images, read=images.image, indices=np.arange(len(images)), file=None)
                runs: dict[str, Callable[[], int]] = {
                    "ours": lambda images=images, size=size: sum(1 for _ in images.squares(size, "crop")),
                    "whole": lambda images=whole, size=size: sum(1 for _ in images.squares(size, "crop")),
                    "loop": lambda paths=paths, size=size: sum(
                        pool.map(bare, [paths[part::WORKERS] for part in range(WORKERS)], [size] * WORKERS)
                    ),
                }
                for run in runs.values():  # starts the processes and loads the files into the system's memory
                    run()
                rates = {key: [] for key in runs}
                for _ in range(repeats):
                    for key, run in runs.items():
                        started = time.perf_counter()
                        count = run()
                        rates[key].append(count / (time.perf_counter() - started))
                shown = [f"{statistics.median(rates[key]):,.0f}" for key in ("ours", "whole", "loop")]
                ratios = [spread(rates[key], rates["loop"]) for key in ("ours", "whole")]
                best = [f"{max(rates[key]) / max(rates['loop']):.2f}" for key in ("ours", "whole")]
                lines.append(f"| {name} | {size} | {' | '.join([*shown, *ratios, *best])} |")
                print(lines[-1], flush=True)
    return "\n".join(lines)


def spread(ours: Sequence[float], loop: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ours, loop, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# The effect of reducing JPEGs


def reduction(folder: Path | None) -> str:
    lines = [
        "## JPEGs reduced while they are decoded",
        "",
        "Reduced decoding is compared with decoding the whole image. The same Lanczos resampling with `fit=crop` follows in "
        "both cases. Differences are in levels of 255. Their mean and maximum are taken over all pixels and channels. "
        "Each time is the shortest of five, on one core. A photo whose shorter side is less than four times the wanted size is "
        "decoded whole in both cases, so its pixels do not differ.",
        "",
        "| photo | size | mean difference | greatest | whole, ms | reduced, ms | times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    photos: dict[str, object] = {}
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with Image.open(path) as image:
                if min(image.size) >= 2000:
                    photos[f"{path.name} {image.width}x{image.height}"] = path
    for width, height in ((4000, 3000), (1999, 1333), (500, 375)):
        stream = io.BytesIO()
        photo(width, height, 1).save(stream, "JPEG", quality=90)
        photos[f"synthetic {width}x{height}"] = stream
    for name, file in photos.items():
        lines += [f"| {name} | {row} |" for size in (32, 224, 512) if (row := compared(file, size))]
    print("\n".join(lines), flush=True)
    return "\n".join([*lines, "", huge()])


def compared(file: object, size: int) -> str:
    from distdiff.data.reading.decoding import read_image, read_square
    from distdiff.data.reading.fit import fit_image

    def timed(make: Callable[[], Image.Image]) -> tuple[np.ndarray, float]:
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            made = make()
            seconds.append(time.perf_counter() - started)
        return np.asarray(made).astype(int), min(seconds) * 1000

    whole, slow = timed(lambda: fit_image(read_image(file), size, "crop"))
    reduced, fast = timed(lambda: read_square(file, size, "crop"))
    difference = np.abs(whole - reduced)
    return f"{size} | {difference.mean():.2f} | {difference.max()} | {slow:.0f} | {fast:.0f} | {slow / fast:.1f}"


def huge() -> str:
    """Reads a plain and a progressive JPEG of 30,000 x 30,000 pixels, each in a new process; tells time and memory."""
    results = []
    with tempfile.TemporaryDirectory(prefix="distdiff-huge-") as folder:
        plain, progressive = Path(folder) / "plain.jpg", Path(folder) / "progressive.jpg"
        image = Image.new("L", (30_000, 30_000), 90)  # 900 MB
        image.paste(200, (7000, 7000, 20_000, 20_000))
        image.save(plain, quality=80)
        image.save(progressive, quality=80, progressive=True)
        del image
        for path in (plain, progressive):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                results.append(pool.submit(read_huge, str(path)).result())
    return (
        f"A grey JPEG of 30,000 x 30,000 pixels at size 224 was {results[0]}. The same image, saved as a progressive "
        f"JPEG, was {results[1]}."
    )


def read_huge(path: str) -> str:
    from distdiff.data.reading.decoding import UnreadableImage, read_square

    before, started = peak_memory(), time.perf_counter()
    try:
        read_square(path, 224, "crop")
        told = "read"
    except UnreadableImage as error:
        told = f"refused ({error.reason})"
    grown = (peak_memory() - before) / 2**10
    return (
        f"{told} in {time.perf_counter() - started:.1f} s, and the peak memory of the process grew by {grown:,.0f} MiB"
    )


def peak_memory() -> int:
    """The peak resident memory of this process, in KiB; `getrusage` would include that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


# The first and the second time


def second_time(name: str, folder: Path, scratch: Path) -> str:
    """A Markdown section on the seconds until files are identified, the first batch is ready and an epoch is read."""
    rows = []
    cache = Path(tempfile.mkdtemp(dir=scratch))
    for what, gb in (("first run", 4.0), ("second run", 4.0), ("second run, image_cache_gb=0", 0.0)):
        rows.append(f"| {what} | {' | '.join(f'{seconds:.2f}' for seconds in one_run(folder, cache, gb))} |")
    for path in (cache / "examined").glob("*"):
        path.unlink()
    rows.append(
        f"| nothing remembered, image_cache_gb=0 | {' | '.join(f'{s:.2f}' for s in one_run(folder, cache, 0))} |"
    )
    print("\n".join(rows), flush=True)
    return "\n".join(
        [
            f"## {name}: the first and the second time",
            "",
            "The images are read at size 224 in batches of 32, as for a training, but nothing is trained. The columns are the "
            "seconds from the start of the reading until all files are identified, until the first batch is ready, and until "
            "all batches of an epoch have been read. The rows were measured from top to bottom.",
            "",
            "| | identified | first batch | first epoch |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def one_run(folder: Path, cache: Path, gb: float) -> list[float]:
    from distdiff.classification.data import ClassificationData, ImageTensors
    from distdiff.data.readable import checked
    from distdiff.data.reading.options import ReadingOptions
    from distdiff.data.sources.imagefolder import read_class_folders

    started, told = time.perf_counter(), []
    images = read_class_folders(str(folder))
    options = ReadingOptions(num_workers=WORKERS, cache_dir=cache, image_cache_bytes=int(gb * 1e9))
    images, _ = checked(replace(images, options=options))
    told.append(time.perf_counter() - started)
    steps = -(-len(images) // 32)
    tensors = ImageTensors([images], 224, "crop", samples=steps * 32)
    for number, _ in enumerate(ClassificationData(tensors, None, steps, 32, 0).train_dataloader()):
        if number == 0:
            told.append(time.perf_counter() - started)
    return [*told, time.perf_counter() - started]


if __name__ == "__main__":
    main()
