"""Flags of Beam find their way, and who computes has no part in the result."""

import sys

import pytest

from data_prep.config import Config
from data_prep.pipeline import beam, run
from data_prep.pipeline.workdir import Work
from tests.data_prep.painted import content, paint
from tests.data_prep.test_main import ROOT

OURS = {"source", "input", "output", "config"}


def test_flags_of_beam_come_after_the_dashes():
    ours = ["--source=mot", "--input", "dir", "--config.seed=1", "--outptu=o", "x"]
    beams = ["--runner=FlinkRunner", "--flink_master=h:8081", "--worker_machine_type=n2", "--save_main_session"]
    assert beam.split_flags([*ours, "--", *beams], OURS) == (ours, beams)
    assert beam.split_flags(ours, OURS) == (ours, [])  # what nobody knows stays, to be complained about
    assert beam.split_flags(["--runner=x"], {"runner"}) == (["--runner=x"], [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--runner=FlinkRunner", "--source=mot", "--", "--parallelism=2"],
            r"--runner=FlinkRunner is a flag of Apache Beam; .* \.\.\. -- --runner=FlinkRunner --parallelism=2$",
        ),
        (["--source=mot", "--", "--input=x"], "--input=x is a flag of data_prep; these come before --"),
        (["--", "--config.seed=1"], r"--config\.seed=1 is a flag of data_prep"),
        (["--", "--runer=x"], "Apache Beam has no flag '--runer=x'"),
        (["--", "--direct_num_workers", "2"], "Apache Beam has no flag '2'; after -- .* spelled --name=value"),
    ],
)
def test_a_flag_on_the_wrong_side_is_refused_with_the_right_one(flags, message):
    with pytest.raises(beam.RunError, match=message):
        beam.split_flags(flags, OURS)


@pytest.mark.parametrize(
    ("flags", "workers", "mode"),
    [
        ([], 1, "in_memory"),
        (["--direct_num_workers=2"], 2, "multi_processing"),
        (["--direct_num_workers=2", "--direct_running_mode=multi_threading"], 2, "multi_threading"),
    ],
)
def test_several_workers_are_processes_unless_asked_otherwise(flags, workers, mode):
    direct = beam.options(flags).view_as(beam.DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (workers, mode)


def test_a_wrong_value_is_said_in_one_line():
    ours, beams = beam.split_flags(["--", "--direct_num_workers=two"], OURS)
    assert (ours, beams) == ([], ["--direct_num_workers=two"])
    with pytest.raises(beam.RunError, match=r"^Apache Beam: .*direct_num_workers: invalid int value: 'two'$"):
        beam.options(beams)


class _Seen(Exception):
    pass


@pytest.mark.parametrize(
    "flags",
    [
        ("--runner=DataflowRunner", "--project=p", "--region=europe-west4", "--sdk_container_image=i"),
        ("--runner=FlinkRunner", "--flink_master=localhost:8081", "--environment_type=LOOPBACK"),
        ("--runner=SparkRunner", "--spark_master_url=spark://h:7077", "--environment_type=DOCKER"),
        ("--runner=DirectRunner", "--direct_num_workers=3"),
    ],
)
def test_every_flag_reaches_the_runner(tmp_path, monkeypatch, flags):
    seen = {}

    def pipeline_of(runner, options):
        seen.update(options.get_all_options(), given=runner)
        raise _Seen

    monkeypatch.setattr(beam.beam, "Pipeline", pipeline_of)
    work = Work(tmp_path)
    work.folder.mkdir()
    assert beam.split_flags(["--", *flags], OURS) == ([], list(flags))
    with pytest.raises(beam.RunError, match="what is done is kept"):
        beam.each_video("x", work, ["v"], "arrow", lambda: lambda video: None, flags)
    for flag in flags:
        name, value = flag.removeprefix("--").split("=", 1)
        assert str(seen[name]) == value
    # On this machine the runner is made here; any other is Beam's to find by its name.
    assert (seen["given"] is None) == ("DirectRunner" not in flags[0])


def test_in_a_notebook_as_elsewhere(tmp_path, monkeypatch):
    """What Beam imports in a notebook needs packages that it does not depend on."""
    ipython = pytest.importorskip("IPython", reason="needs the extra notebook")
    monkeypatch.setattr(ipython, "get_ipython", lambda: ipython)
    monkeypatch.setitem(sys.modules, "apache_beam.runners.interactive.interactive_environment", None)
    work = Work(tmp_path)
    work.folder.mkdir()
    assert beam.interactive_utils.is_in_ipython()
    beam.each_video("x", work, ["v"], "arrow", lambda: lambda video: work.file(video, "arrow").touch())
    assert work.file("v", "arrow").exists()


@pytest.mark.slow
def test_two_workers_write_what_one_does(tmp_path):
    root = paint(tmp_path / "in")
    for name, flags in {"one": (), "two": ("--runner=DirectRunner", "--direct_num_workers=2")}.items():
        run.run(run.Job("tracklets", str(root), "color", tmp_path / name, Config(), flags))
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) >= 8


def test_every_flag_of_the_documents_is_one():
    text = (ROOT / "docs" / "guides" / "beam.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("cion-prep ") and "runner" in line]
    assert {flag for line in lines for flag in line.split() if flag.startswith("--runner")} == {
        "--runner=DataflowRunner",
        "--runner=FlinkRunner",
        "--runner=SparkRunner",
    }
    for line in lines:
        ours, _ = beam.split_flags(line.split()[1:], OURS)
        assert [flag.split("=")[0] for flag in ours] == ["--source", "--input", "--embedder", "--output"]
