"""Which layouts are tried on a processor and on GPUs, which one is chosen, and a real calibration on two processors."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from infosam.errors import UserError
from tune.calibrate import Layout, Node, Trialled, choose, layout_table, run_calibration, search_layouts, with_layout
from tune.cli import register
from tune.config import SweepConfig, load_sweep_config, parse_sweep_config

TWO_CPUS = Node(cpus=2, gpus=0, memory_gib=8)
ONE_GPU = Node(cpus=16, gpus=1, memory_gib=128)


def changed(config: SweepConfig, *overrides: str) -> SweepConfig:
    return parse_sweep_config(config.model_dump(mode="json"), overrides, source="test")


class Machine:
    """Measures as a machine would whose GPU, or main memory, has room for `room` parts of a batch of 8."""

    def __init__(self, room: float, speed_up: float = 2.0) -> None:
        self.room = room
        self.speed_up = speed_up  # of two trials at a time over one
        self.asked: list[Layout] = []

    def __call__(self, layout: Layout) -> Trialled:
        self.asked.append(layout)
        needed = layout.processes * (0.5 if layout.checkpointing else 1.0) * 8 / layout.accumulate
        steps_per_s = self.speed_up if layout.trials > 1 else 1.0
        problem = None if needed <= self.room else "out of memory"
        return Trialled(layout=layout, steps_per_s=steps_per_s, step_s=layout.trials / steps_per_s, problem=problem)


def described(layouts: list[Layout]) -> list[tuple[int, int, bool]]:
    return [(layout.trials, layout.accumulate, layout.checkpointing) for layout in layouts]


class TestLayouts:
    @pytest.fixture
    def config(self, sweep_config: SweepConfig) -> SweepConfig:
        return changed(sweep_config, "run.train.batch_size=8", "run.info={compression: 1, distillation: 1}")

    def test_what_fits_at_once_is_not_divided(self, config: SweepConfig) -> None:
        machine = Machine(room=100)
        found = search_layouts(config, TWO_CPUS, machine)
        assert described(machine.asked) == [(1, 1, False), (2, 1, False)]
        assert [layout.cpus for layout in machine.asked] == [2, 1]
        assert choose(found, config).trials == 2

    def test_blocks_are_recomputed_before_a_batch_is_divided(self, config: SweepConfig) -> None:
        machine = Machine(room=1.0)
        found = search_layouts(config, ONE_GPU, machine)
        assert described(machine.asked) == [(1, 1, False), (1, 1, True), (1, 2, True), (1, 4, True), (2, 4, True)]
        assert found[-1].problem == "out of memory"  # no larger number of trials is tried after that
        assert described([choose(found, config)]) == [(1, 4, True)]

    def test_trials_share_a_gpu(self, config: SweepConfig) -> None:
        machine = Machine(room=100)
        search_layouts(config, ONE_GPU, machine)
        assert [(layout.trials, layout.gpus, layout.cpus) for layout in machine.asked] == [
            (1, 1.0, 16), (2, 0.5, 8), (3, 0.3333, 5), (4, 0.25, 4),
        ]  # fmt: skip

    def test_every_gpu_of_a_node_gets_as_many(self, config: SweepConfig) -> None:
        machine = Machine(room=1000)
        search_layouts(config, Node(cpus=8, gpus=2, memory_gib=64), machine)
        assert [(layout.trials, layout.gpus) for layout in machine.asked] == [
            (1, 1.0), (2, 1.0), (4, 0.5), (6, 0.3333), (8, 0.25),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("node", "layouts"),
        [
            (Node(cpus=8, gpus=0, memory_gib=64), [(1, 2, 4, 0), (2, 2, 2, 0), (4, 2, 1, 0)]),
            (
                Node(cpus=16, gpus=2, memory_gib=64),
                [(1, 2, 8, 1.0), (2, 2, 4, 0.5), (3, 2, 2, 0.3333), (4, 2, 2, 0.25)],
            ),
            (Node(cpus=16, gpus=1, memory_gib=64), [(1, 2, 8, 0.5), (2, 2, 4, 0.25)]),
            (
                Node(cpus=4, gpus=1, memory_gib=64, alike=2),
                [(1, 1, 4, 1.0), (2, 1, 2, 0.5), (3, 1, 1, 0.3333), (4, 1, 1, 0.25)],
            ),
        ],
        ids=["processor", "a GPU for each", "they share one", "on two nodes"],
    )
    def test_the_workers_of_a_trial_share_what_it_gets(
        self, config: SweepConfig, node: Node, layouts: list[tuple[int, int, float, float]]
    ) -> None:
        machine = Machine(room=1000)
        search_layouts(changed(config, "resources.workers_per_trial=2"), node, machine)
        found = [(layout.trials, layout.workers, layout.cpus, layout.gpus) for layout in machine.asked]
        assert found == layouts

    def test_more_workers_than_processors_are_refused(self, config: SweepConfig) -> None:
        with pytest.raises(UserError, match=r"workers_per_trial = 4: 1 node\(s\) with 2 CPU do not hold so many"):
            search_layouts(changed(config, "resources.workers_per_trial=4"), TWO_CPUS, Machine(room=1000))

    def test_a_number_of_slots_gives_way_to_what_was_found(
        self, config: SweepConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = changed(config, "resources.slots=1").model_dump(mode="json")
        layout = Layout(trials=2, cpus=1, gpus=0)
        assert SweepConfig.model_validate(with_layout(settings, layout)).resources.slots == "auto"
        monkeypatch.setenv("INFOSAM_CLUSTER_GROWS", "1")  # where there is nothing to count
        settings = changed(config, "resources.slots=1").model_dump(mode="json")
        assert SweepConfig.model_validate(with_layout(settings, layout)).resources.slots == 1

    def test_more_trials_must_be_worth_it(self, config: SweepConfig) -> None:
        found = search_layouts(config, TWO_CPUS, Machine(room=100, speed_up=1.01))
        assert choose(found, config).trials == 1

    def test_a_processor_is_used_where_the_sweep_says_so(self, config: SweepConfig) -> None:
        machine = Machine(room=100)
        search_layouts(changed(config, "run.train.device=cpu"), Node(cpus=4, gpus=1, memory_gib=8), machine)
        assert [(layout.trials, layout.gpus) for layout in machine.asked] == [(1, 0), (2, 0), (4, 0)]

    def test_a_batch_that_must_stay_whole_is_not_divided(self, config: SweepConfig) -> None:
        """Conv-LoRA balances its experts over a whole batch."""
        machine = Machine(room=1.0)
        settings = config.model_dump(mode="json") | {"space": {"optim.lr": {"log_uniform": [1e-4, 1e-2]}}}
        whole = parse_sweep_config(settings, ["run.peft={kind: conv_lora, balance: 0.1}"], source="test")
        found = search_layouts(whole, ONE_GPU, machine)
        assert described(machine.asked) == [(1, 1, False), (1, 1, True)]
        with pytest.raises(
            UserError, match=r"run\.train\.batch_size = 8: no layout fits.*calibrate does not change it"
        ):
            choose(found, whole)

    def test_the_batch_size_never_changes(self, config: SweepConfig) -> None:
        layout = Layout(trials=2, cpus=4, gpus=0.5, accumulate=4, checkpointing=True)
        fitted = SweepConfig.model_validate(with_layout(config.model_dump(mode="json"), layout))
        assert fitted.run.train.batch_size == config.run.train.batch_size
        assert (fitted.run.train.accumulate, fitted.run.train.checkpointing) == (4, True)
        assert (fitted.resources.cpus_per_worker, fitted.resources.gpus_per_worker) == (4, 0.5)
        assert fitted.space == config.space

    def test_the_table_tells_what_does_not_fit(self, config: SweepConfig, console: Console) -> None:
        console.print(layout_table(search_layouts(config, ONE_GPU, Machine(room=1.0)), config))
        text = console.export_text()
        assert "batch size 8" in text
        assert text.count("out of memory") == 4


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_processors_are_measured_and_the_sweep_is_written(
    sweep_config: SweepConfig, console: Console, infosam_home: Path, tmp_path: Path
) -> None:
    config = changed(sweep_config, "run.model.image_px=64", "resources.workers_per_trial=2")
    best = run_calibration([config], console=console, write=tmp_path / "fitted.yaml")
    text = console.export_text()
    assert "Layouts of one node at batch size 2" in text
    assert f"resources.cpus_per_worker={best.cpus}" in text
    assert (best.trials, best.workers, best.cpus) == (1, 2, 1)
    fitted = load_sweep_config(tmp_path / "fitted.yaml")
    assert fitted.resources.cpus_per_worker == best.cpus
    assert fitted.run.train.batch_size == 2
    assert not infosam_home.exists()


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path, dataset: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kept")
    app = typer.Typer()
    register(app)
    words = ["calibrate", "default", f"data={dataset}", "--write", str(tmp_path / "mine.yaml")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UserError)
    assert "the file exists" in str(result.exception)
    assert (tmp_path / "mine.yaml").read_text() == "kept"
