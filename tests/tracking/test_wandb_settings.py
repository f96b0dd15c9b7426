"""Keys of `logger=wandb` and W&B's own settings: which values are refused, and which of them a run has."""

from pathlib import Path

import pytest
from conftest import compose
from wandb_runs import alone_with_wandb, track  # noqa: F401 (a fixture)
from wandb_server import KEY, WandbServer

from distdiff.errors import UserError

pytestmark = pytest.mark.usefixtures("alone_with_wandb")

LONG = "x" * 129
REFUSED = {
    "logger.project=cats/few-shot": ("logger.project=cats/few-shot", "cannot contain characters"),
    f"logger.project={LONG}": (f"logger.project={LONG}", "128 characters"),
    "logger.project=''": ("logger.project=''", "give a name"),
    f"logger.tags=[good,{'x' * 70}]": ("logger.tags[1]=xxx", "between 1 and 64 characters"),
    "logger.tags=['']": ("logger.tags[0]=", "between 1 and 64 characters"),
    f"logger.group={LONG}": (f"logger.group={LONG}", "128 characters"),
    f"logger.name={LONG}": (f"logger.name={LONG}", "128 characters"),
    "logger.entity=my/team": ("logger.entity=my/team", "cannot contain characters"),
    "logger.id=a/b": ("logger.id=a/b", "cannot contain the characters"),
    "logger.mode=sometimes": ("logger.mode=sometimes", "one of online, offline"),
    "logger.resume=perhaps": ("logger.resume=perhaps", "one of allow, must"),
    "logger.fork_from=abc": ("logger.fork_from=abc", "<run>?<metric>"),
    "logger.settings={init_timeout: soon}": ("logger.settings.init_timeout=soon", "valid number"),
    "logger.settings={patience: 3}": ("logger.settings.patience=3", "not permitted"),
    f"logger.settings={{api_key: {KEY}}}": ("logger.settings.api_key", "WANDB_API_KEY"),
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_key_that_wandb_would_refuse_is_one_line(override: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", [override])
    for words in REFUSED[override]:
        assert words in str(caught.value)
    assert "is not allowed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_keys_that_exclude_each_other_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^logger: resume, fork_from are not allowed together: .*exclusive"):
        compose("train", ["logger.resume=must", "logger.fork_from='a?_step=3'"])


VARIABLES = {
    "WANDB_PROJECT": ("cats/few-shot", "WANDB_PROJECT=cats/few-shot is not allowed: .*cannot contain"),
    "WANDB_TAGS": (f"a,{'x' * 65}", "WANDB_TAGS=a,x+ is not allowed: .*64 characters"),
    "WANDB_MODE": ("sometimes", "WANDB_MODE=sometimes is not allowed: .*'offline'"),
    "WANDB_BASE_URL": ("my-server", "WANDB_BASE_URL=my-server is not allowed: .*URL"),
    "WANDB_RUN_ID": ("a/b", "WANDB_RUN_ID=a/b is not allowed: .*characters"),
    "WANDB_RESUME": ("perhaps", "WANDB_RESUME=perhaps is not allowed: .*'allow'"),
    "WANDB_API_KEY": ("secret", "WANDB_API_KEY is not allowed: .*40"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_wandb_would_refuse_is_one_line_that_shows_no_key(name: str, monkeypatch) -> None:
    value, words = VARIABLES[name]
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{words}") as caught:
        compose("train", [])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    compose("train", ["logger=csv"])  # W&B's variables are of no concern to other loggers


def test_an_unused_key_may_have_any_form(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "dummy")
    compose("train", ["logger.mode=offline"])
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text("[default]\nmode = offline\n")  # what `wandb offline` writes
    compose("train", [])
    with pytest.raises(UserError, match="WANDB_API_KEY"):
        compose("train", ["logger.mode=online"])


def test_values_at_the_limits_and_sentences_are_allowed() -> None:
    typed = [
        f"logger.project={'x' * 128}",
        f"logger.tags=[{'x' * 64},a b]",
        'logger.notes="it\'s (only) a test: 3 > 2"',
    ]
    logger = compose("train", [*typed, "logger.name=my run", "logger.job_type=a/b", "logger.save_code=true"]).logger
    assert logger.notes == "it's (only) a test: 3 > 2"
    assert (logger.name, logger.tags[1], logger.save_code) == ("my run", "a b", True)


def test_what_was_typed_wins_over_variables_they_over_files_and_they_over_our_defaults(monkeypatch, tmp_path) -> None:
    def settings(name: str, *typed: str):
        return track(tmp_path / name, "logger.mode=offline", *typed).experiment.settings

    run = settings("default")
    assert (run.project, run.run_name, run.run_job_type, run.run_group) == ("distdiff", "default", "train", None)
    assert (run.init_timeout, run.finish_timeout) == (20, 60)
    assert Path(run.wandb_dir) == tmp_path / "default/wandb"
    (tmp_path / ".config/wandb").mkdir(parents=True)
    (tmp_path / ".config/wandb/settings").write_text("[default]\nproject = from-file\nentity = file-team\n")
    monkeypatch.setenv("WANDB_NAME", "from-variable")
    monkeypatch.setenv("WANDB_RUN_GROUP", "some-group")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    monkeypatch.setenv("WANDB_NOTES", "a note")
    monkeypatch.setenv("WANDB_JOB_TYPE", "job")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "7")
    run = settings("multirun/2026/3")
    assert (run.project, run.entity, run.run_name, run.run_group) == (
        "from-file",
        "file-team",
        "from-variable",
        "some-group",
    )
    assert (run.run_tags, run.run_notes, run.run_job_type, run.finish_timeout) == (("a", "b"), "a note", "job", 7)
    assert Path(run.wandb_dir) == tmp_path / "elsewhere/wandb"
    monkeypatch.setenv("WANDB_PROJECT", "from-variable")
    assert settings("variable").project == "from-variable"
    typed = ["project=typed", "entity=e", "group=g", "tags=[c]", "name=n", "notes=o", "job_type=t", "id=i", "dir=own"]
    run = settings("typed", *(f"logger.{item}" for item in typed), "logger.settings={finish_timeout: 3}")
    assert (run.project, run.entity, run.run_group, run.run_tags) == ("typed", "e", "g", ("c",))
    assert (run.run_name, run.run_notes, run.run_job_type, run.run_id) == ("n", "o", "t", "i")
    assert (run.root_dir, run.finish_timeout) == ("own", 3)


def test_a_disabled_run_writes_and_says_nothing(monkeypatch, tmp_path: Path, capsys) -> None:
    track(tmp_path / "typed", "logger.mode=disabled")
    for name, value in (("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            track(tmp_path / name)
    assert list(tmp_path.glob("[!.]*/*")) == []
    assert capsys.readouterr().out == ""


def test_a_run_is_online_where_wandb_finds_a_key_for_its_server(monkeypatch, tmp_path: Path, capsys) -> None:
    """The server is ours, so a host name of W&B's own in the code would find no key."""
    with WandbServer() as server:
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
        track(tmp_path / "other-server")
        assert server.runs == {}
        (tmp_path / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
        run = track(tmp_path / "netrc", "logger.notes=hello").experiment
        stored = server.runs[run.id]
        assert (stored.said("project"), stored.said("displayName"), stored.said("notes")) == (
            "distdiff",
            "netrc",
            "hello",
        )
        assert [row["loss"] for row in stored.history] == [0.5]
        assert stored.exit_code == 0
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb/settings").write_text("[default]\nmode = offline\n")
        monkeypatch.setenv("WANDB_NAME", "again")  # W&B reads its files again where the environment has changed
        track(tmp_path / "offline")
        assert list(server.runs) == [run.id]
        track(tmp_path / "typed", "logger.mode=online")
        assert len(server.runs) == 2
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said] == ["offline,", "offline,"]


def test_an_online_run_without_a_key_is_offline_unless_a_login_is_demanded(monkeypatch, tmp_path, capsys) -> None:
    track(tmp_path / "typed", "logger.mode=online")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("W&B      the run goes on offline: no API key for https://")
    assert second.startswith("W&B      offline, to upload it: wandb sync ")
    with pytest.raises(UserError, match=r"logger\.force=true is not allowed: no API key"):
        track(tmp_path / "forced", "logger.force=true")
