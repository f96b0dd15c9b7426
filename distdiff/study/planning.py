"""Plans a study: loads its data, claims the directories of its expansions, and finds the runs that are in its table."""

from dataclasses import replace

from distdiff.classification.loss import class_weights
from distdiff.classification.running import Running
from distdiff.classification.training import ClassifierTrainer
from distdiff.data.datasets import load_dataset
from distdiff.data.leaks import tell_leaks
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.study.identity import RunIdentities
from distdiff.study.methods import BASELINES
from distdiff.study.plan import SeedPlan, StudyPlan, load_images
from distdiff.study.search import recipes_of
from distdiff.study.tools import StudyTools


def planned(tools: StudyTools) -> StudyPlan:
    """Loads the data and claims every expansion's directory; from then on `tools` have the trainers of all rows.

    A directory that belongs to another configuration is therefore reported before any training.
    """
    config = tools.config
    with tools.timer("load data"):
        splits = load_dataset(config.dataset)
        validates = bool(tools.searched) or sum(row.base in BASELINES for row in tools.rows.values()) > 1
        plan = load_images(config, splits, validates)
        plan = replace(plan, seeds=[replace(of_seed, jobs=_jobs(of_seed, tools)) for of_seed in plan.seeds])
        for name, row in tools.rows.items():
            running = Running.of(row.config, splits, tools.run_dir)
            recipes = recipes_of(row, config, plan.largest())
            class_weights(recipes[0], plan.pool.parts)  # weights that do not fit are refused before images are made
            tools.trainers[name] = [
                ClassifierTrainer(recipe, config.trainer, tools.cache, running) for recipe in recipes
            ]
        leaks = tell_leaks(replace(splits, train=plan.pool.parts[0], **{config.study.split: plan.held_out}))
        identities = RunIdentities(config, plan, tools.trainers, tools.assemblies, tools.judges)
        return replace(plan, seeds=[_with_runs(of_seed, identities, tools) for of_seed in plan.seeds], leaks=leaks)


def _jobs(of_seed: SeedPlan, tools: StudyTools) -> dict[str, ExpansionJob]:
    """The expansions of all rows under a data seed, by `Row.images`.

    Raises `UserError` for several factors of a method that makes the copies of a source together.
    """
    jobs: dict[str, ExpansionJob] = {}
    for name, row in tools.rows.items():
        if row.expands and row.images not in jobs:
            jobs[row.images] = tools.assemblies[name].job(of_seed.data, of_seed.seed, row.made_by, row.folder)
            if row.factor is not None and jobs[row.images].method.together:
                raise UserError(
                    f"study.factors={list(tools.config.study.factors)} is not allowed with the row {row.base}: its method "
                    "makes the copies of a source together, so those of a smaller factor are other ones; give each "
                    "factor a row of its own, 'study.rows={<name>: [expansion.factor=<factor>, ...]}'"
                )
    return jobs


def _with_runs(of_seed: SeedPlan, identities: RunIdentities, tools: StudyTools) -> SeedPlan:
    """The seed's plan with the runs that are in the table. The directories of the other runs' images are claimed."""
    fingerprints = {
        name: identities.of(row, of_seed) if tools.table.path else [""] * tools.config.study.training_seeds
        for name, row in tools.rows.items()
    }
    of_seed = replace(of_seed, fingerprints=fingerprints, finished=tools.table.find_all(fingerprints))
    for images in {tools.rows[name].images: None for name in of_seed.lacking() if tools.rows[name].expands}:
        of_seed.jobs[images].claim()
    return of_seed
