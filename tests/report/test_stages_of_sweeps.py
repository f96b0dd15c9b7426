"""The jobs of a sweep over the guidance strength share all that does not depend on it, and end with a page."""

from collections import Counter
from pathlib import Path

from scripts import run_here

from distdiff.caching.stages import StageCache
from distdiff.expansion.job import ExpansionJob
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.metrics.judge import JudgeTrainer


def counted(monkeypatch, done: Counter[str]) -> None:
    """Lets everything that takes time add to `done`: the stages by name, images that are made, sources that are encoded."""
    make, encode, expand = StageCache._make, LatentDiffusion.encode, ExpansionJob._make
    train = JudgeTrainer.train

    def counted_make(cache, folder, *arguments):
        done[folder.parent.name] += 1
        make(cache, folder, *arguments)

    def counted_encode(generator, images):
        done["sources that are encoded"] += len(images)
        return encode(generator, images)

    def counted_expand(job, plan, missing, *arguments):
        done[f"images of {job.name}"] += len(missing)
        expand(job, plan, missing, *arguments)

    def judged(trainer, pool):
        before = done["classifiers"]
        judge = train(trainer, pool)
        done["judges that are trained"] += done["classifiers"] > before
        return judge

    monkeypatch.setattr(StageCache, "_make", counted_make)
    monkeypatch.setattr(LatentDiffusion, "encode", counted_encode)
    monkeypatch.setattr(ExpansionJob, "_make", counted_expand)
    monkeypatch.setattr(JudgeTrainer, "train", judged)


def test_in_an_empty_cache_more_strengths_make_only_their_own_images_and_classifiers(
    small_run: list[str], monkeypatch, capsys, tmp_path: Path
) -> None:
    typed = [*small_run, "study.seeds=1", "measure.judge_steps=3", "train.steps=5", "seed=1000"]
    typed += ["expansion.factor=1", "measure.judge_classifier=small_cnn"]
    typed += ["-m", f"hydra.sweep.dir={tmp_path}/sweep", "study.methods=[original,none,chosen]"]
    done: Counter[str] = Counter()
    counted(monkeypatch, done)
    for strengths in ("1", "0,0.1,1"):  # the second sweep finds the cache of the first, and 0 is the row `none`
        ended = run_here("run", [*typed, f"guidance.rho={strengths}"], capsys)
        assert ended.status == 0, ended.out + ended.err
        if strengths == "1":
            once = done.copy()
    further = done - once
    sources = 20
    assert further == {"images of direct": sources, "images": 1, "classifiers": 1}
    assert once["sources that are encoded"] == sources
    assert once["judges that are trained"] == 1
    assert once["images of none"] == once["images of direct"] == sources
    assert all(once[stage] == 1 for stage in ("latents", "prompts", "prototypes")), once

    page = (tmp_path / "sweep/sweep.html").read_text()
    assert ended.out.rstrip().endswith(f"page     {tmp_path}/sweep/sweep.html")
    assert (tmp_path / "sweep/sweep.svg").is_file()
    head = page[page.index('<table class="pictures">') :].split("</thead>")[0]
    columns = ["class (file)", "source", "unguided, ρ = 0", "ρ = 0.1", "ρ = 1"]
    assert [head.index(f">{name}<") for name in columns] == sorted(head.index(f">{name}<") for name in columns)
    assert page.count("data:image/png;base64,") == 6 * (len(columns) - 1)
