"""Tune the hyperparameters of language models: whole searches in one JAX program.

Each command of `jaxhpo` is one typed call: `pbt(config)`, `run_search(config)`, `train(config)`,
`resume(run)`, `finetune(config)`, `export(run, folder)`, `fork(run, ...)`, `average(run, ...)`,
`stages(file)`, `lineage(run, ...)`, `plan(config)`, `profile(config)`, `sample(run)`,
`translate(run)`, `size(model)`, `write_report(run)`; `search_function(...)` searches with a loss of
your own.
`with_recipe(config, name)` gives a config a published recipe, `discovered_schedule(run)` the
learning rate that a run found. Nothing heavy is imported before it is used.
"""

from typing import TYPE_CHECKING

from jaxhpo._lazy import attach

if TYPE_CHECKING:
    from jaxhpo.adapters.config import AdapterConfig
    from jaxhpo.cli.average import average
    from jaxhpo.cli.export import ExportQuery, export
    from jaxhpo.cli.finetune import finetune
    from jaxhpo.cli.fork import fork
    from jaxhpo.cli.lineage import lineage
    from jaxhpo.cli.pbt import pbt
    from jaxhpo.cli.plan import plan
    from jaxhpo.cli.profile import profile
    from jaxhpo.cli.resume import resume
    from jaxhpo.cli.sample import SampleQuery, sample
    from jaxhpo.cli.search import run_search
    from jaxhpo.cli.size import SizeQuery, size
    from jaxhpo.cli.stages import stages
    from jaxhpo.cli.train import train
    from jaxhpo.cli.translate import Translated, TranslateQuery, translate
    from jaxhpo.config.finetune import FinetuneRun
    from jaxhpo.config.recipes import with_recipe
    from jaxhpo.config.run import ForkRun, PbtRun, SearchRun, TrainRun
    from jaxhpo.data.config import DataConfig, ExamplesConfig
    from jaxhpo.errors import Diverged, Interrupted, UsageError
    from jaxhpo.nn.config import DropoutConfig, HeadConfig, LossConfig, ModelConfig
    from jaxhpo.optimizers.config import OptimizerConfig
    from jaxhpo.population.config import ExecutionConfig
    from jaxhpo.record.config import CheckpointConfig, TrackerConfig
    from jaxhpo.report.page import write_report
    from jaxhpo.schedules.config import ScheduleConfig
    from jaxhpo.search.config import PbtConfig, SearchConfig
    from jaxhpo.study.function import search_function
    from jaxhpo.study.rates import discovered_schedule

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "DataConfig",
    "Diverged",
    "DropoutConfig",
    "ExamplesConfig",
    "ExecutionConfig",
    "ExportQuery",
    "FinetuneRun",
    "ForkRun",
    "HeadConfig",
    "Interrupted",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PbtConfig",
    "PbtRun",
    "SampleQuery",
    "ScheduleConfig",
    "SearchConfig",
    "SearchRun",
    "SizeQuery",
    "TrackerConfig",
    "TrainRun",
    "TranslateQuery",
    "Translated",
    "UsageError",
    "average",
    "discovered_schedule",
    "export",
    "finetune",
    "fork",
    "lineage",
    "pbt",
    "plan",
    "profile",
    "resume",
    "run_search",
    "sample",
    "search_function",
    "size",
    "stages",
    "train",
    "translate",
    "with_recipe",
    "write_report",
]

__getattr__, _ = attach(
    __name__,
    {
        "pbt": "cli.pbt",
        "run_search": "cli.search",
        "search_function": "study.function",
        "train": "cli.train",
        "translate": "cli.translate",
        "TranslateQuery": "cli.translate",
        "Translated": "cli.translate",
        "finetune": "cli.finetune",
        "export": "cli.export",
        "ExportQuery": "cli.export",
        "fork": "cli.fork",
        "average": "cli.average",
        "stages": "cli.stages",
        "lineage": "cli.lineage",
        "resume": "cli.resume",
        "plan": "cli.plan",
        "profile": "cli.profile",
        "sample": "cli.sample",
        "SampleQuery": "cli.sample",
        "size": "cli.size",
        "SizeQuery": "cli.size",
        "write_report": "report.page",
        "discovered_schedule": "study.rates",
        "with_recipe": "config.recipes",
        "PbtRun": "config.run",
        "SearchRun": "config.run",
        "TrainRun": "config.run",
        "ForkRun": "config.run",
        "FinetuneRun": "config.finetune",
        "DataConfig": "data.config",
        "ModelConfig": "nn.config",
        "HeadConfig": "nn.config",
        "AdapterConfig": "adapters.config",
        "ExamplesConfig": "data.config",
        "DropoutConfig": "nn.config",
        "LossConfig": "nn.config",
        "ScheduleConfig": "schedules.config",
        "OptimizerConfig": "optimizers.config",
        "PbtConfig": "search.config",
        "SearchConfig": "search.config",
        "ExecutionConfig": "population.config",
        "CheckpointConfig": "record.config",
        "TrackerConfig": "record.config",
        "UsageError": "errors",
        "Interrupted": "errors",
        "Diverged": "errors",
    },
)
