import datetime
import math
from dataclasses import Field, fields, replace
from pathlib import Path

import pytest

from trustmine.config import PROFILES, Settings, load
from trustmine.errors import SettingsError


def test_each_value_knows_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('max_commit_tokens = 500\nextensions = [".c"]\ncutoff = 2024-05-06\nmatch_mode = "word"\n')
    loaded = load(file, {"model": "m.gguf", "db": None}, {"TRUSTMINE_MATCH_MODE": "substring", "HOME": "/x"})
    assert loaded.settings.max_commit_tokens == 500
    assert loaded.settings.extensions == (".c",)
    assert loaded.settings.cutoff == datetime.date(2024, 5, 6)
    assert loaded.settings.match_mode == "substring"
    assert loaded.sources["max_commit_tokens"] == f"file {file}"
    assert loaded.sources["match_mode"] == "environment TRUSTMINE_MATCH_MODE"
    assert loaded.sources["model"] == "flag"
    assert loaded.sources["db"] == "default"


def test_the_file_in_the_present_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trustmine.toml").write_text("seed = 7\n")
    monkeypatch.chdir(tmp_path)
    assert load(env={}).settings.seed == 7


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ("max_comit_tokens = 5", "Unknown setting 'max_comit_tokens'", "Did you mean max_commit_tokens?"),
        ("max_commit_tokens = 0", "a whole number from 1 to 1,000,000, not 0", ""),
        ("max_commit_tokens = true", "whole number", ""),
        ("max_commit_tokens = 1.5", "whole number", ""),
        ('max_commit_tokens = "many"', "whole number", ""),
        ("max_commit_tokens = 1" + "0" * 400, "a whole number from 1 to 1,000,000, not 1000", ""),
        ("max_commit_tokens = 1" + "0" * 9_000, "not valid TOML", ""),
        ("min_p_fix = 50", "min_p_fix must be a number from 0 to 1, not 50", "trustmine settings"),
        ("min_p_fix = -0.1", "a number from 0 to 1, not -0.1", ""),
        ("undecided_share = nan", "a number from 0 to 1, not nan", ""),
        ("lease_s = inf", "lease_s must be a number from 1 to 604,800, not inf", ""),
        ("lease_s = 1" + "0" * 400, "a number from 1 to 604,800", ""),
        ("temperature = -inf", "a number from 0 to 10, not -inf", ""),
        ("n_gpu_layers = -2", "a whole number from -1 to 10,000, not -2", ""),
        ('keywords = "fix"', "list of strings", ""),
        ("keywords = [1]", "list of strings", ""),
        ('match_mode = "regex"', "substring, word", ""),
        ('cutoff = "soon"', "date like", ""),
        ("seed = = 3", "not valid TOML", ""),
        ('rationale = ""', "a string", ""),
    ],
)
def test_a_mistake_names_the_place_and_what_to_do(tmp_path: Path, text: str, complaint: str, hint: str) -> None:
    file = tmp_path / "trustmine.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load(file, env={})
    assert complaint in raised.value.what
    assert str(file) in raised.value.where
    assert hint in raised.value.hint


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(SettingsError) as raised:
        load(env={"TRUSTMINE_MAX_COMIT_TOKENS": "5"})
    assert "TRUSTMINE_MAX_COMIT_TOKENS" in raised.value.where


NUMBERS = [f for f in fields(Settings) if isinstance(f.default, int | float) and not isinstance(f.default, bool)]


@pytest.mark.parametrize("known", NUMBERS, ids=lambda known: known.name)
def test_every_number_has_bounds_and_may_be_at_them(known: "Field[float]") -> None:
    low, high = known.metadata["low"], known.metadata["high"]
    assert low <= known.default <= high != 0
    variable = f"TRUSTMINE_{known.name.upper()}"
    for bound in (low, high):
        assert getattr(load(env={variable: str(bound)}).settings, known.name) == bound
    for beyond in (low - 1, high + 1, math.nan, math.inf, -math.inf):
        with pytest.raises(
            SettingsError, match=f"Setting {known.name} must be a .*number from {low:,} to {high:,}, not"
        ):
            load(env={variable: str(beyond)})


def test_a_variable_that_is_not_utf8_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="Setting db must be UTF-8") as raised:
        load(env={"TRUSTMINE_DB": "caf\udce9.db"})
    assert "TRUSTMINE_DB" in raised.value.where


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Cannot read"):
        load(tmp_path / "none.toml", env={})


def test_the_paper_profile_has_the_published_numbers() -> None:
    s = Settings()
    assert (s.max_diff_chars, s.max_commit_tokens, s.max_function_tokens) == (1_000_000, 1_000, 1_000)
    assert (len(s.keywords), len(s.common_calls), len(s.error_codes)) == (77, 21, 22)
    assert s.extensions == (".c", ".cc", ".cpp", ".h")
    assert s.cutoff == datetime.date(2023, 1, 1)


def test_a_profile_gives_defaults_that_file_environment_and_flags_override(tmp_path: Path) -> None:
    file = tmp_path / "trustmine.toml"
    file.write_text('profile = "wide"\nmax_function_tokens = 700\n')
    loaded = load(file, flags={"fix_scope": "hunk"}, env={"TRUSTMINE_HEADERS": "counted"})
    assert loaded.sources["counted_files"] == "profile wide"
    assert loaded.settings.counted_files == "source"
    assert (loaded.settings.max_function_tokens, loaded.settings.fix_scope, loaded.settings.headers) == (
        700,
        "hunk",
        "counted",
    )
    assert loaded.sources["max_function_tokens"] == f"file {file}"
    assert load(file, flags={"profile": "paper"}, env={}).settings == replace(Settings(), max_function_tokens=700)
    by_environment = load(file, env={"TRUSTMINE_PROFILE": "paper"})
    assert by_environment.settings.counted_files == "all"


@pytest.mark.parametrize("profile", list(PROFILES))
def test_what_a_profile_says_are_settings_that_a_user_could_make(profile: str) -> None:
    flags = dict(PROFILES[profile])
    alone, named = load(flags=flags, env={}).settings, load(flags={"profile": profile}, env={}).settings
    assert replace(alone, profile=profile) == named
    assert (named == Settings()) == (profile == "paper")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://gpu7:8000", "http://gpu7:8000/v1"),
        ("http://GPU7:8000/v1/", "http://gpu7:8000/v1"),
        ("https://host/api/v1/chat/completions", "https://host/api/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_an_endpoint_is_kept_in_one_form(given: str, kept: str) -> None:
    assert load(flags={"endpoint": given}, env={}).settings.endpoint == kept


@pytest.mark.parametrize(
    "secret",
    [
        "http://user:hunter2@host/v1",
        "http://hunter2@host/v1",
        "http://host/v1?key=hunter2",
        "http://host/v1#hunter2",
        "hunter2:8000",
        "ftp://hunter2/v1",
        "http://hunter2:99999/v1",
        "http://hunter2 x/v1",
        "http:///hunter2",
        "http://[hunter2/v1",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="must be an address like") as error:
        load(flags={"endpoint": secret}, env={})
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="not the key itself") as error:
        load(env={"TRUSTMINE_API_KEY_ENV": "sk-hunter2"})
    assert "hunter2" not in str(error.value)
    assert load(env={"TRUSTMINE_API_KEY_ENV": "MY_KEY"}).settings.api_key_env == "MY_KEY"
