"""The configuration of a sweep: one model for each section of its file, and reading it."""

from tune.config.after import FinalConfig as FinalConfig
from tune.config.domains import DomainsConfig as DomainsConfig
from tune.config.domains import load_sweep_configs as load_sweep_configs
from tune.config.domains import parse_sweep_configs as parse_sweep_configs
from tune.config.domains import sweep_file as sweep_file
from tune.config.limits import BudgetConfig as BudgetConfig
from tune.config.limits import ConstraintConfig as ConstraintConfig
from tune.config.resources import ResourceConfig as ResourceConfig
from tune.config.search import SchedulerConfig as SchedulerConfig
from tune.config.search import SearchConfig as SearchConfig
from tune.config.sweep import SweepConfig as SweepConfig
from tune.config.sweep import TrackingConfig as TrackingConfig
from tune.config.sweep import default_space as default_space
from tune.config.sweep import load_sweep_config as load_sweep_config
from tune.config.sweep import parse_sweep_config as parse_sweep_config
