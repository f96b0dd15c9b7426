"""Checks on a GPU whether its images agree with the CPU's, and measures time and memory at Stable Diffusion's size.

    bash experiments/studies/gpu_check.sh --out $OUT --minutes 8      # on a bare GPU machine; installs missing wheels
    python experiments/studies/gpu_check.py --tiny                    # the whole check on the CPU, with tiny networks

First, several tasks run side by side: the study of experiments/run.py on the digits, and expansions of the digits on
the GPU and on the CPU, at two batch sizes, with and without TF32. Then a model of Stable Diffusion 1.4's architecture
with random weights expands four random photos at 512 pixels, while nothing else runs. Every command of `experiments/`
runs in a worker process that keeps its modules loaded. A worker that dies or takes too long is replaced. The script updates
results.jsonl and gpu.md after each result.
"""

import argparse
import contextlib
import json
import os
import platform
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY, SPACE_NEEDED = Path("/dev/shm"), 8e9  # bytes: the model takes 2.4e9, the results take little
COMPARED = ("none", "transform", "direct")
REAL_SIZE = {"none": None, "direct": 5, "transform": 2, "transform_official": 2}  # guidance -> guidance.period
FACTORS = {
    1: 1,
    4: 2,
    8: 4,
}  # batch size -> copies of each of the four photos; these make at least two batches, the first a warm-up
TOGETHER = 0.45  # the share of the time after which tasks that run side by side are stopped
LEAST_SECONDS = 20  # if less time is left, no further task is begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu_check", help="where the results go")
    parser.add_argument(
        "--work", type=Path, help="the folder for the model and the images; default: a new folder, in memory if it fits"
    )
    parser.add_argument("--minutes", type=float, default=8, help="tasks that have not begun by then are left out")
    parser.add_argument("--tiny", action="store_true", help="a dry run on the CPU, with tiny networks")
    parser.add_argument("--only", choices=("digits", "real"), help="one half: digits (side by side) or real (timed)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work_off(options.worker)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    options.work = Path(tempfile.mkdtemp(prefix="distdiff-gpu-check-", dir=options.work or roomy_place()))
    record = Record(options)
    try:
        check(options, record)
    finally:
        record.write_page()
        shutil.rmtree(options.work, ignore_errors=True)
    print(record.page)


def roomy_place() -> Path | None:
    """`/dev/shm` if it has enough space, so that no disk slows the model's loading; otherwise None, the default place."""
    with contextlib.suppress(OSError):
        return SHARED_MEMORY if shutil.disk_usage(SHARED_MEMORY).free > SPACE_NEEDED else None
    return None


def check(options: argparse.Namespace, record: "Record") -> None:
    """Runs first the tasks that may run side by side, then the timed ones."""
    begun = time.monotonic()
    end = begun + 60 * options.minutes
    end_together = begun + TOGETHER * 60 * options.minutes
    stages = threading.Event()
    with Worker("real", options, record, threads=4) as real:
        lines = [threading.Thread(target=prepare_real_size, args=(real, options, end_together))]
        if options.only != "real":
            lines.append(threading.Thread(target=study_digits, args=(options, record, end_together)))
            expansions = (expand_digits_on_cpu, expand_digits_on_gpu, expand_digits_exactly)
            lines += [
                threading.Thread(target=part, args=(options, record, end_together, stages)) for part in expansions
            ]
        for line in lines:
            line.start()
        for line in lines:
            line.join()
        if options.only != "real":
            compare_digits(options, record)
        record.add("time", "side by side", seconds=time.monotonic() - begun)
        if options.only != "digits":
            expand_at_real_size(real, options, end)
    record.add("time", "in all", seconds=time.monotonic() - begun)


# --- the tasks -------------------------------------------------------------------------------------------------------


def study_digits(options: argparse.Namespace, record: "Record", end: float) -> None:
    """Runs the study of `make run` with one seed on the GPU."""
    overrides = [f"trainer={gpu(options)}", "study.seeds=1", "logger=none"]
    if options.tiny:
        overrides += ["generator.num_steps=4", "expansion.factor=1", "train.steps=3", "measure.judge_steps=3"]
        overrides += guide_keys(steps=3, batch_size=32)
    with Worker("study", options, record, threads=4) as worker:
        row = worker.run("study", "digits", "run", overrides, end)
    picture = options.work / "digits" / "samples.png"
    if row["status"] == 0 and picture.is_file():
        shutil.copy(picture, options.out / "samples.png")


def expand_digits_on_cpu(options: argparse.Namespace, record: "Record", end: float, stages: threading.Event) -> None:
    """Makes on the CPU the images that those of the GPU are compared with.

    Sets `stages` once the guide, prototypes, latents and prompts that all expansions share are cached.
    """
    try:
        with Worker("cpu", options, record, threads=max(2, (os.cpu_count() or 2) // 2)) as worker:
            for guidance in COMPARED:
                expand_digits(worker, options, "cpu", "cpu", guidance, 100, end)
                stages.set()
    finally:
        stages.set()


def expand_digits_on_gpu(options: argparse.Namespace, record: "Record", end: float, stages: threading.Event) -> None:
    """Expands the digits on the GPU with PyTorch's default for TF32; `direct` runs twice."""
    with Worker("gpu", options, record) as worker:
        stages.wait()
        for guidance in COMPARED:
            expand_digits(worker, options, "gpu", gpu(options), guidance, 100, end)
        expand_digits(worker, options, "gpu-again", gpu(options), "direct", 100, end)
        for guidance in COMPARED:
            expand_digits(worker, options, "gpu", gpu(options), guidance, 1, end)


def expand_digits_exactly(options: argparse.Namespace, record: "Record", end: float, stages: threading.Event) -> None:
    """Expands the digits on the GPU in full float32, and `direct` once more with `trainer=ddp`."""
    with Worker("exact", options, record, {"NVIDIA_TF32_OVERRIDE": "0"}) as worker:
        stages.wait()
        for guidance in COMPARED:
            expand_digits(worker, options, "exact", gpu(options), guidance, 100, end)
        for guidance in COMPARED:
            expand_digits(worker, options, "exact", gpu(options), guidance, 1, end)
        expand_digits(worker, options, "ddp", "ddp_cpu" if options.tiny else "ddp", "direct", 100, end)


def expand_digits(
    worker: "Worker", options: argparse.Namespace, label: str, trainer: str, guidance: str, batch_size: int, end: float
) -> None:
    title = f"{label}-{guidance}-b{batch_size}"
    # The images of a smaller factor are among those of a larger one.
    factor = 1 if options.tiny else 2 if batch_size == 1 else 5
    overrides = [
        f"guidance={guidance}",
        f"trainer={trainer}",
        f"expansion.batch_size={batch_size}",
        f"expansion.factor={factor}",
        f"expansion.output_dir={options.work / 'digits-expanded' / title}",
        f"paths.cache_dir={options.work / 'digits-cache'}",
        "logger=none",
    ]
    if options.tiny:
        overrides += ["generator.num_steps=4", *guide_keys(steps=3, batch_size=32)]
    worker.run("digits", title, "expand", overrides, end)


def prepare_real_size(worker: "Worker", options: argparse.Namespace, end: float) -> None:
    """Records the machine, makes the photos and the model, and runs one expansion that caches all stages."""
    worker.ask({"do": "environment"}, "environment", "machine", end)
    if options.only == "digits":
        return
    make_photos(options.work / "photos")
    folder = options.work / "model"
    worker.ask({"do": "build", "folder": str(folder), "tiny": options.tiny}, "model", "Stable Diffusion 1.4", end)
    expand_photos(worker, options, "none", 1, False, end, part="warm-up")


def expand_at_real_size(worker: "Worker", options: argparse.Namespace, end: float) -> None:
    """Expands with every guidance and batch size, with and without gradient checkpointing; important cases first."""
    cases = [(guidance, 4, guidance != "none") for guidance in REAL_SIZE]
    cases += [(guidance, 1, guidance != "none") for guidance in REAL_SIZE]
    cases += [(guidance, 1, False) for guidance in REAL_SIZE if guidance != "none"]
    cases += [(guidance, 4, False) for guidance in REAL_SIZE if guidance != "none"]
    cases += [(guidance, 8, guidance != "none") for guidance in REAL_SIZE]
    cases += [(guidance, 8, False) for guidance in REAL_SIZE if guidance != "none"]
    for guidance, batch_size, checkpointing in cases:
        expand_photos(worker, options, guidance, batch_size, checkpointing, end)


def expand_photos(
    worker: "Worker",
    options: argparse.Namespace,
    guidance: str,
    batch_size: int,
    checkpointing: bool,
    end: float,
    part: str = "real size",
) -> None:
    title = f"{guidance}-b{batch_size}{'-checkpointing' if checkpointing else ''}"
    overrides = [
        "dataset=imagefolder",
        f"dataset.root={options.work / 'photos'}",
        "dataset.validation_fraction=0",
        "generator=local",
        f"generator.model={options.work / 'model'}",
        "generator.scheduler=ddim",
        "generator.cfg_scale=7.5",
        f"generator.gradient_checkpointing={str(checkpointing).lower()}",
        "encoder=guide",
        f"guidance={guidance}",
        "expansion.strength=0.5",
        f"expansion.batch_size={batch_size}",
        f"expansion.factor={FACTORS[batch_size]}",
        "expansion.max_failures=null",
        f"expansion.output_dir={options.work / 'photos-expanded' / part.replace(' ', '-') / title}",
        f"paths.cache_dir={options.work / 'photos-cache'}",
        f"trainer={gpu(options)}",
        "logger=none",
    ]
    if options.tiny:
        overrides += ["generator.resolution=64", "generator.num_steps=4", "generator.dtype=float32"]
        overrides += guide_keys(steps=2, batch_size=4)
    else:
        overrides += ["generator.resolution=512", "generator.num_steps=50", "generator.dtype=float16"]
        overrides += guide_keys(steps=20, batch_size=4, classifier="resnet50")
        if REAL_SIZE[guidance]:
            overrides.append(f"guidance.period={REAL_SIZE[guidance]}")
    keys = {"guidance": guidance, "batch_size": batch_size, "checkpointing": checkpointing}
    worker.run(part, title, "expand", overrides, end, **keys)


def guide_keys(steps: int, batch_size: int, classifier: str = "small_cnn") -> list[str]:
    """The overrides that set how the guide is trained."""
    keys = {"classifier": classifier, "steps": steps, "batch_size": batch_size}
    return [f"encoder.guide.{name}={value}" for name, value in keys.items()]


def gpu(options: argparse.Namespace) -> str:
    return "cpu" if options.tiny else "gpu"


def make_photos(root: Path) -> None:
    """Writes two classes of two training photos and one test photo each: smooth random colours under a little noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float32)
                photo = (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(photo).save(root / split / name / f"{number}.jpg", quality=92)


# --- comparisons -----------------------------------------------------------------------------------------------------


def compare_digits(options: argparse.Namespace, record: "Record") -> None:
    """Records comparisons of pairs of digit expansions: across devices, batch sizes and repetitions."""
    pairs = []
    for guidance in COMPARED:
        pairs += [
            (f"{guidance}: GPU against CPU", f"gpu-{guidance}-b100", f"cpu-{guidance}-b100"),
            (f"{guidance}: GPU without TF32 against CPU", f"exact-{guidance}-b100", f"cpu-{guidance}-b100"),
            (f"{guidance}: GPU, batch 1 against 100", f"gpu-{guidance}-b1", f"gpu-{guidance}-b100"),
            (f"{guidance}: GPU without TF32, batch 1 against 100", f"exact-{guidance}-b1", f"exact-{guidance}-b100"),
        ]
    pairs.append(("direct: the same again on the GPU", "gpu-again-direct-b100", "gpu-direct-b100"))
    pairs.append(("direct: trainer=ddp, without TF32, against one device", "ddp-direct-b100", "exact-direct-b100"))
    for title, one, other in pairs:
        folders = [options.work / "digits-expanded" / name for name in (one, other)]
        try:
            record.add("comparison", title, status=0, **compare(*folders))
        except (OSError, KeyError, ValueError) as error:
            record.add("comparison", title, status="not possible", reason=str(error))


def compare(smaller: Path, larger: Path) -> dict[str, Any]:
    """Compares each image of `smaller` with that of the same name in `larger`, which has at least these images."""
    import numpy as np
    import pyarrow.parquet
    from PIL import Image

    rows = [
        {row["file_name"]: row for row in pyarrow.parquet.read_table(folder / "metadata.parquet").to_pylist()}
        for folder in (smaller, larger)
    ]
    names = list(rows[0])
    largest, identical = [], 0
    for name in names:
        one, two = (np.asarray(Image.open(folder / name)).astype(int) for folder in (smaller, larger))
        largest.append(int(np.abs(one - two).max()))
        identical += largest[-1] == 0
    planned = ("label", "class_name", "source", "copy", "seed", "strength")
    return {
        "images": len(names),
        "same_plan": all(rows[0][name][key] == rows[1].get(name, {}).get(key) for name in names for key in planned),
        "identical": identical / len(names),
        "within_1": sum(value <= 1 for value in largest) / len(names),
        "largest": max(largest),
        "same_group": sum(rows[0][name]["group"] == rows[1][name]["group"] for name in names) / len(names),
        "gradients_not_finite": sum(not row["gradient_finite"] for row in rows[0].values()),
    }


# --- workers, seen from outside --------------------------------------------------------------------------------------


class Worker:
    """A process that does one task at a time and is replaced if it dies or takes too long; results go to `record`."""

    def __init__(
        self,
        name: str,
        options: argparse.Namespace,
        record: "Record",
        environment: dict[str, str] | None = None,
        threads: int = 2,
    ) -> None:
        self.options = options
        self.record = record
        self.log = options.out / f"log-{name}.txt"
        threads = 1 if options.tiny else threads  # a dry run must not slow other work on the machine
        self.environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", **(environment or {})}
        self.process: subprocess.Popen | None = None
        self.log.unlink(missing_ok=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self._kill()

    def run(self, part: str, title: str, script: str, overrides: list[str], end: float, **keys: Any) -> dict[str, Any]:
        """Runs `experiments/<script>.py` with the run's directory `<work>/<title>`, unless too little time is left."""
        overrides = [
            *overrides,
            f"hydra.run.dir={self.options.work / title}",
            f"paths.output_dir={self.options.work / 'outputs'}",
        ]
        task = {"do": "command", "script": script, "overrides": overrides, "run_dir": str(self.options.work / title)}
        return self.ask(task, part, title, end, **keys)

    def ask(self, task: dict[str, Any], part: str, title: str, end: float, **keys: Any) -> dict[str, Any]:
        """Gives a task to the process and records the result, that is, the answer or the reason why there is none."""
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            return self.record.add(part, title, status="left out: no time", **keys)
        started = time.monotonic()
        answer = self._answer(task, left)
        return self.record.add(part, title, **keys, seconds=time.monotonic() - started, **answer)

    def _answer(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            self._start()
        with contextlib.suppress(BrokenPipeError):  # the process has just died, so no answer comes
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self._kill()
            return {"status": f"stopped after {seconds:.0f} s"}
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.process = None
        return {"status": f"the process died with status {status}"}

    def _start(self) -> None:
        python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker", str(self.log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment | {"PYTHONPATH": python_path},
            )

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


# --- workers, seen from inside ---------------------------------------------------------------------------------------


def work_off(log: Path) -> None:
    """Reads tasks from stdin, one line of JSON each, and answers each with a line of JSON. Other output goes to `log`."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tasks = {"environment": describe_machine, "build": build_model, "command": run_command}
    for line in sys.stdin:
        task = json.loads(line)
        print(f"\n$ {shlex.join(map(str, task.get('overrides', task.values())))}", file=sys.stderr, flush=True)
        before = log.stat().st_size
        try:
            answer = {"status": 0} | tasks[task["do"]](task)
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"status": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
        sys.stdout.flush()
        sys.stderr.flush()
        said = log.read_bytes()[before:].decode(errors="replace").splitlines()
        notes = [text.strip() for text in said if "out of memory" in text.lower() or text.startswith("distdiff:")]
        answers.write(json.dumps(answer | ({"notes": notes} if notes else {})) + "\n")


def describe_machine(_: dict[str, Any]) -> dict[str, Any]:
    import diffusers
    import lightning
    import torch
    import transformers

    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, lightning)}
    card, driver = f"none ({os.cpu_count()} CPU cores)", "none"
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        card, _, driver = asked.rpartition(", ") if asked else (torch.cuda.get_device_name(), "", "not known")
    return {
        "card": card,
        "driver": driver,
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": torch.backends.cudnn.version(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "versions": versions,
    }


def run_command(task: dict[str, Any]) -> dict[str, Any]:
    """Runs a command of `experiments/` in this process; returns its status, times, memory and, on success, results."""
    import gc
    import runpy

    import torch

    clock = batch_clock()
    script = str(ROOT / "experiments" / f"{task['script']}.py")
    sys.argv = [script, *task["overrides"]]
    status: Any = 0
    held_before = device_memory()
    with watched(clock):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
    answer = {"status": status} | clock.measured() | {"held_before_gb": held_before}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if status == 0:
        results = json.loads(Path(task["run_dir"], "results.json").read_text(encoding="utf-8"))
        answer |= what_was_made(Path(results["expanded"])) if task["script"] == "expand" else accuracies(results)
        answer["images_per_second"] = results.get("images_per_second")
    return answer


def batch_clock():
    """A Lightning callback that measures the seconds of each prediction batch, with and without writing the images."""
    import torch
    from lightning.pytorch.callbacks import Callback

    class BatchClock(Callback):
        def __init__(self) -> None:
            self.batches: list[tuple[int, float]] = []  # (images, seconds without writing) of each batch
            self.begun: list[float] = []
            self.ended = 0.0
            self.peak = {}

        def on_predict_batch_start(self, trainer, pl_module, batch, *_: object) -> None:
            self.begun.append(now())

        def on_predict_batch_end(self, trainer, pl_module, outputs, batch, *_: object) -> None:
            self.batches.append((len(batch), now() - self.begun[-1]))

        def on_predict_epoch_end(self, *_: object) -> None:
            self.ended = now()
            if torch.cuda.is_available():
                peak = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
                self.peak = {"peak_gb": peak[0] / 1e9, "peak_reserved_gb": peak[1] / 1e9}

        def measured(self) -> dict[str, Any]:
            """The seconds of each batch, peak memory, and the mean seconds per image over all batches but the first."""
            if not self.ended:
                return {}
            timed, seconds = self.batches[1:], [round(seconds, 3) for _, seconds in self.batches]
            measured = {"batch_seconds": seconds} | self.peak
            if timed:
                images = sum(count for count, _ in timed)
                measured["model_seconds"] = sum(spent for _, spent in timed) / images
                measured["image_seconds"] = (self.ended - self.begun[1]) / images
            return measured

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    return BatchClock()


@contextlib.contextmanager
def watched(clock):
    """A context in which `clock` times every `Trainer.predict`; peak memory counts from the start of each."""
    import lightning
    import torch

    kept = lightning.Trainer.predict

    def predict(trainer, *arguments, **keywords):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        clock.__init__()
        trainer.callbacks.insert(0, clock)  # before the callback that writes images
        return kept(trainer, *arguments, **keywords)

    lightning.Trainer.predict = predict
    try:
        yield
    finally:
        lightning.Trainer.predict = kept


def device_memory() -> float:
    """The memory that tensors take on the GPU, in 10^9 bytes; 0 between two commands unless there is a leak."""
    import torch

    return torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def accuracies(results: dict[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": {row["method"]: row["accuracy_mean"] for row in results["rows"]},
        "rates": {row["method"]: row.get("images_per_second") for row in results["rows"]},
        "stages": results.get("timing"),
    }


def what_was_made(folder: Path) -> dict[str, Any]:
    """Statistics that reveal black images or missing gradients in an expanded dataset, and PNG encoding times."""
    import io
    from statistics import median

    import numpy as np
    import pyarrow.parquet
    from PIL import Image

    rows = pyarrow.parquet.read_table(folder / "metadata.parquet").to_pylist()
    failures = folder / "failures.parquet"
    reasons = [row["reason"] for row in pyarrow.parquet.read_table(failures).to_pylist()] if failures.is_file() else []
    pixels = [np.asarray(Image.open(folder / row["file_name"])) for row in rows]
    encode_seconds = []
    for image in pixels[:3]:
        started = time.perf_counter()
        Image.fromarray(image).save(io.BytesIO(), "png")
        encode_seconds.append(time.perf_counter() - started)
    energies = {
        name: median(row[name] for row in rows)
        for name in ("energy_before", "energy_after")
        if rows and name in rows[0]
    }
    return {
        "made": len(rows),
        "failed": len(reasons),
        "reasons": sorted(set(reasons)),
        "gradients_not_finite": sum(row.get("gradient_finite") is False for row in rows),
        "least_deviation": min((float(image.std()) for image in pixels), default=0.0),
        "mean_level": float(np.mean([image.mean() for image in pixels])) if pixels else 0.0,
        "encode_seconds": median(encode_seconds) if encode_seconds else None,
        **energies,
    }


# --- the model -------------------------------------------------------------------------------------------------------


def build_model(task: dict[str, Any]) -> dict[str, Any]:
    """Builds Stable Diffusion 1.4's architecture with random weights, on the GPU if there is one, and saves it.

    The text encoder is stored in float32, as plain `from_pretrained` needs it; the other networks in float16.
    """
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = byte_tokenizer()
    sizes = TINY if task["tiny"] else STABLE_DIFFUSION_1_4
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        unet = UNet2DConditionModel(**sizes["unet"])
        autoencoder = AutoencoderKL(**sizes["autoencoder"])
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                **sizes["text"],
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    parameters = {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in (("unet", unet), ("autoencoder", autoencoder), ("text encoder", text_encoder))
    }
    pipeline = StableDiffusionPipeline(
        autoencoder.half().cpu(),
        text_encoder.cpu(),
        tokenizer,
        unet.half().cpu(),
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(task["folder"])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"parameters": parameters}


STABLE_DIFFUSION_1_4 = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    },
    "autoencoder": {
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    "text": {  # the text encoder of CLIP ViT-L/14
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    },
}
TINY = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (16, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "autoencoder": {
        "sample_size": 64,
        "block_out_channels": (8, 8, 8, 8),
        "latent_channels": 4,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    "text": {
        "vocab_size": 514,
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
    },
}


def byte_tokenizer():
    """A CLIP tokenizer that knows no words: it spells every text byte by byte."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = json.dumps({token: number for number, token in enumerate(tokens)})
        Path(folder, "vocab.json").write_text(vocabulary, encoding="utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(
            folder, model_max_length=77, unk_token="<|endoftext|>", pad_token="<|endoftext|>"
        )


# --- results ---------------------------------------------------------------------------------------------------------


class Record:
    """All results so far: one line of JSON for each, and a page that is rewritten after each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.begun = time.monotonic()
        self._lock = threading.Lock()
        (options.out / "results.jsonl").unlink(missing_ok=True)

    def add(self, part: str, title: str, **values: Any) -> dict[str, Any]:
        row = {"part": part, "title": title} | values
        with self._lock:
            self.rows.append(row)
            with (self.options.out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.write_page()
            status = values.get("status", 0)
            happened = "" if status == 0 else f": {status}"
            print(f"{time.monotonic() - self.begun:6.1f} s  {part}: {title}{happened}", flush=True)
        return row

    def write_page(self) -> None:
        (self.options.out / "gpu.md").write_text(self.page, encoding="utf-8")

    @property
    def page(self) -> str:
        machine = next((row for row in self.rows if row["part"] == "environment" and "card" in row), None)
        sections = [introduction(self.options, machine)]
        sections += study_section([row for row in self.rows if row["part"] == "study"])
        sections += comparison_section([row for row in self.rows if row["part"] == "comparison"])
        sections += real_size_section([row for row in self.rows if row["part"] == "real size"], self.options)
        sections += trouble_section(self.rows)
        return "\n".join(sections) + "\n"


def introduction(options: argparse.Namespace, machine: dict[str, Any] | None) -> str:
    command = shlex.join(["python", "experiments/studies/gpu_check.py", *sys.argv[1:]])
    lines = ["# On a GPU", ""]
    if options.tiny:
        lines += ["**A dry run on the CPU with tiny networks: no figure here means anything.**", ""]
    lines += [
        "The networks at real size have random weights. The figures measured with them show time, memory and numerical",
        "soundness; they say nothing about the quality of images. Each configuration ran once, on few images. *Peak GB* is",
        "the largest amount of memory that tensors took while images were made, including the weights of the networks.",
        "",
        f"`{command}`",
        "",
    ]
    if machine:
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        lines += [
            f"Card: {machine['card']}, driver {machine['driver']}, CUDA {machine['cuda']}, cuDNN {machine['cudnn']}; "
            f"{machine['cpu_cores']} CPU cores.",
            f"Python {machine['python']}, {versions}. TF32 in convolutions by default: "
            f"{'yes' if machine['tf32_convolutions'] else 'no'}.",
            "",
        ]
    return "\n".join(lines)


def study_section(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    row = rows[0]
    lines = ["## The study on digits", "", "`experiments/run.py trainer=gpu study.seeds=1 logger=none` "]
    lines[-1] += f"ended with exit status {row['status']} after {row.get('seconds', 0):.0f} s, "
    lines[-1] += "beside other work on the same card."
    if "accuracy" in row:
        lines += ["", "| method | accuracy | images/s |", "|---|---|---|"]
        rates = row["rates"]
        lines += [f"| {name} | {value:.3f} | {number(rates[name], '.1f')} |" for name, value in row["accuracy"].items()]
    return [*lines, ""]


def comparison_section(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## The same images",
        "",
        "All expansions of the digits compute in float32, with the same guide, prototypes, latents and prompts. Each row",
        "compares two expansions. *Same plan* says whether file names, labels, sources, copy numbers, seeds and strengths",
        "agree. *Identical* is the share of images in which no pixel value differs. *Within 1* is the share of images in",
        "which no pixel value differs by more than 1 of 255 levels. *Same group* is the share of images whose `group` is",
        "equal in both metadata.",
        "If both expansions run on the same type of device, DistDiff promises that *within 1* is 1.000 for `none` and",
        "`transform` and at least 0.95 for other guidance. DistDiff promises nothing if the types of device differ.",
        "",
        "| compared | images | same plan | identical | within 1 | largest difference | same group |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["status"] != 0:
            lines.append(f"| {row['title']} | {row['status']} | | | | | |")
            continue
        lines.append(
            f"| {row['title']} | {row['images']} | {'yes' if row['same_plan'] else 'NO'} | {row['identical']:.3f} "
            f"| {row['within_1']:.3f} | {row['largest']} | {row['same_group']:.3f} |"
        )
    return [*lines, ""]


def real_size_section(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    if not rows:
        return []
    lines = [
        "## At real size",
        "",
        "The model has Stable Diffusion 1.4's architecture and runs in float16 at 512 x 512 pixels, with 50 DDIM",
        "steps, strength 0.5 (so 25 steps run) and a classifier-free guidance scale of 7.5. `direct` guides 5 steps;",
        "`transform` and `transform_official` roll out 2 steps. The energy is computed from the features of a ResNet-50 at",
        "224 pixels. Times are in seconds per image, and the first batch is not counted. *Model s* ends when the pixels are",
        "finished. *In all s* also includes the writing of PNG files, which is slow because random weights make noise.",
        "*Encoding s* is the time to encode one PNG. *Not finite* is the number of images with a gradient that was not",
        "finite. *Deviation* is the standard deviation of an image's pixel levels, the smallest among the images.",
        "",
        "| guidance | batch | checkpointing | model s | in all s | encoding s | peak GB | reserved GB | not finite | failed "
        "| deviation | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        keys = f"| {row['guidance']} | {row['batch_size']} | {'yes' if row['checkpointing'] else 'no'} "
        remarks = "; ".join(([] if row["status"] == 0 else [str(row["status"])]) + row.get("notes", []))
        cells = [
            number(row.get("model_seconds"), ".2f"),
            number(row.get("image_seconds"), ".2f"),
            number(row.get("encode_seconds"), ".2f"),
            number(row.get("peak_gb"), ".1f"),
            number(row.get("peak_reserved_gb"), ".1f"),
            f"{row['gradients_not_finite']} of {row['made']}" if "made" in row else "",
            str(row.get("failed", "")),
            number(row.get("least_deviation"), ".1f"),
            remarks,
        ]
        lines.append(keys + "| " + " | ".join(cells) + " |")
    return [*lines, ""]


def trouble_section(rows: list[dict[str, Any]]) -> list[str]:
    """The tasks of all parts that did not end well, as a section of the page."""
    lines = []
    for row in rows:
        status, notes = row.get("status", 0), list(row.get("notes", []))
        found = ([] if status == 0 else [f"status {status}"]) + notes + row.get("reasons", [])
        if row.get("held_before_gb", 0) > 0.1:
            found.append(f"{row['held_before_gb']:.2f} GB were still allocated on the card when this task began")
        lines += [f"- {row['part']}, {row['title']}: {'; '.join(found)}"] if found else []
    return ["## What went wrong", "", *(lines or ["Nothing."]), ""]


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
