"""The configuration: four sources in order, every mistake named, secrets made once and masked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from mixer import settings_values
from mixer.config import load, to_toml
from mixer.errors import ConfigError
from mixer.kept_secrets import with_secrets
from mixer.settings import Settings
from mixer.settings_values import parse_ports
from recording.placement import key_bytes

SECRET = "s3cr3t-of-thirty-two-bytes-and-more"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_contracts() -> None:
    tree = load(file=None, environ={})
    assert str(tree.data_dir) == "var"
    assert (tree.http.host, tree.http.port) == ("127.0.0.1", 8080)
    assert (tree.media.host, tree.media.udp_ports, tree.media.public_ip) == (
        "0.0.0.0",
        range(40000, 41000),
        None,
    )
    assert (tree.sip.enabled, tree.sip.port, tree.sip.tls_port) == (True, 5060, 5061)
    assert (tree.turn.enabled, tree.turn.mode, tree.turn.port, tree.turn.tls_port) == (
        True,
        "embedded",
        3478,
        5349,
    )
    assert (tree.archive.url, tree.archive.jurisdiction) == ("file:var/archive", "eu")


def test_each_source_beats_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path / "m.toml", '[http]\nhost = "127.0.0.2"\nport = 1001\n[log]\nlevel = "debug"\n')
    environ = {"MOSAIQUE_HTTP__PORT": "1002", "MOSAIQUE_LOG__LEVEL": "warning", "PATH": "/bin"}
    tree = load(file=file, environ=environ, assignments=["log.level=error"])
    assert (tree.http.host, tree.http.port, tree.log.level) == ("127.0.0.2", 1002, "error")


def test_the_file_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mosaique.toml", "[http]\nport = 1234\n")
    assert load(environ={}).http.port == 1234


S3 = [
    "archive.url=s3://films/a",
    "archive.provider=scaleway",
    "archive.access_key=AK",
    "archive.secret_key=SK-hidden",
]


@pytest.mark.parametrize(
    ("environ", "assignments", "wanted"),
    [
        (
            {"MOSAIQUE_HTTP__PORT": "http"},
            [],
            ["http.port", "takes a valid integer", "environment MOSAIQUE_HTTP__PORT"],
        ),
        (
            {"MOSAIQUE_HTTP__PROT": "1"},
            [],
            ["http.prot: unknown key", "port", "environment MOSAIQUE_HTTP__PROT"],
        ),
        ({"MOSAIQUE_X__Y": "1"}, [], ["x: unknown key", "media"]),
        ({"MOSAIQUE_HTTP": "1"}, [], ["http: is a section"]),
        ({}, ["http.port.deep=1"], ["http.port"]),
        ({}, ["port"], ["--set takes"]),
        ({}, ["http.port=70000"], ["http.port", "65535", "--set http.port"]),
        ({}, ["media.udp_ports=9-3"], ["media.udp_ports", "FIRST-LAST"]),
        ({}, ["media.public_ip=nowhere"], ["media.public_ip", "takes one IP address"]),
        ({}, ["media.host=300.1.1.1"], ["media.host", "takes an address"]),
        ({}, ["turn.mode=pion"], ["turn.mode", "embedded", "eturnal"]),
        ({}, ["turn.urls=http://x"], ["turn.urls", "stun:"]),
        ({}, ["turn.allowed_peers=10.0.0.1/8"], ["turn.allowed_peers", "CIDR"]),
        ({}, ["turn.allowed_peers=10.1.0.0/16"], ["turn.allowed_peers", "never opens as a network"]),
        ({}, ["turn.public_host=a.example,b.example"], ["turn.public_host", "one name"]),
        ({}, ["turn.public_host=300.1.1.1"], ["turn.public_host", "address"]),
        ({}, ["turn.relay_ports=50000-40000"], ["turn.relay_ports", "FIRST-LAST"]),
        ({}, ["turn.realm=a b"], ["turn.realm"]),
        ({}, ["turn.user_quota=0"], ["turn.user_quota", "1"]),
        ({}, ["auth.secret=short"], ["auth.secret", "32 bytes"]),
        ({}, ["auth.admin_token=two words"], ["auth.admin_token", "RFC 6750"]),
        ({}, ["archive.url=ftp://x"], ["archive.url", "file:PATH"]),
        ({}, ["archive.url=s3://films"], ["archive", "provider: ", "scaleway", "--set archive.url"]),
        ({}, [*S3, "archive.provider=aws"], ["provider: takes one of scaleway"]),
        ({}, [*S3, "archive.region=us-east-1"], ["region: ", "fr-par"]),
        ({}, [*S3[:2], "archive.secret_key=x"], ["access_key: is needed"]),
        ({}, [*S3, "archive.endpoint=https://s3.eu-west-3.amazonaws.com"], ["s3.eu-west-3.amazonaws.com"]),
        ({}, [*S3, "archive.secret_key=**********"], ["archive.secret_key", "mask"]),
        ({}, ["archive.encrypt_key=short"], ["archive.encrypt_key", "base64 of 32 bytes"]),
        ({}, ["archive.ca_file=/nowhere.pem"], ["archive.ca_file", "PEM"]),
        ({}, ["archive.second_url=s3://copies"], ["second_provider: "]),
        ({}, ["archive.jurisdiction=us"], ["archive.jurisdiction", "eu"]),
        ({}, ["http.tls_cert=/nonexistent.pem"], ["http.tls_cert", "PEM"]),
        ({}, ["log.level=loud"], ["log.level", "debug"]),
    ],
)
def test_a_mistake_names_the_key_and_what_it_takes(
    environ: dict[str, str], assignments: list[str], wanted: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ=environ, assignments=assignments)
    for text in wanted:
        assert text in str(caught.value)


def test_all_mistakes_are_told_at_once_and_no_value_is_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={"MOSAIQUE_AUTH__SECRET": "hunter2"}, assignments=["http.port=x", "sip.port=y"])
    message = str(caught.value)
    assert {line.split(":")[0] for line in message.splitlines()} == {"auth.secret", "http.port", "sip.port"}
    assert "hunter2" not in message


def test_a_missing_or_broken_file_is_the_operators(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="not TOML"):
        load(file=write(tmp_path / "bad.toml", "[http\n"), environ={})
    with pytest.raises(ConfigError, match=r"extra: unknown key.*m.toml"):
        load(file=write(tmp_path / "m.toml", "extra = 1\n"), environ={})
    with pytest.raises(ConfigError, match=r"http.port.*m.toml"):
        load(file=write(tmp_path / "m.toml", "[http.port]\nx = 1\n"), environ={})


def test_the_tree_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load(environ={}).http.port = 1  # type: ignore[misc]  # that is the point


def test_the_archive_follows_the_data_dir(tmp_path: Path) -> None:
    tree = load(environ={"MOSAIQUE_DATA_DIR": str(tmp_path)})
    assert tree.archive.directory == tmp_path / "archive"
    assert Settings(data_dir=tmp_path).archive.directory == tmp_path / "archive"
    assert load(environ={}, assignments=["archive.url=file:///srv/a"]).archive.directory == Path("/srv/a")


def test_tls_of_http_is_the_default_of_the_others(tmp_path: Path) -> None:
    cert, key = write(tmp_path / "c.pem", "x"), write(tmp_path / "k.pem", "x")
    other = write(tmp_path / "other.pem", "x")
    tree = load(
        environ={},
        assignments=[
            f"http.tls_cert={cert}", f"http.tls_key={key}", f"turn.tls_cert={other}", f"turn.tls_key={other}",
        ],
    )  # fmt: skip
    assert (tree.sip.tls_cert, tree.sip.tls_key) == (cert, key)
    assert (tree.turn.tls_cert, tree.turn.tls_key) == (other, other)
    with pytest.raises(ConfigError, match="belong together"):
        load(environ={}, assignments=[f"http.tls_cert={cert}"])


def test_lists_are_written_with_commas_or_as_toml_arrays(tmp_path: Path) -> None:
    urls = ("turn:a.example:3478?transport=udp", "stun:[2001:db8::1]:3478")
    file = write(tmp_path / "m.toml", f'[turn]\nurls = ["{urls[0]}", "{urls[1]}"]\nsecret = "new, old"\n')
    tree = load(file=file, environ={})
    assert tree.turn.urls == urls == load(environ={"MOSAIQUE_TURN__URLS": ",".join(urls)}).turn.urls
    assert tree.turn.secrets == ("new", "old")
    assert load(environ={"MOSAIQUE_HTTP__HOST": "127.0.0.1, ::1"}).http.hosts == ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("text", "ports"),
    [("40000-40999", range(40000, 41000)), ("5000", range(5000, 5001)), (" 1 - 65535 ", range(1, 65536))],
)
def test_port_ranges(text: str, ports: range) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "a-b", "1-", "-5", "0-5", "5-70000", "6-5", "1-2-3", "٣-٤"])
def test_no_port_ranges(text: str) -> None:
    with pytest.raises(ValueError, match="FIRST-LAST"):
        parse_ports(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1,localhost", True), ("127.0.0.1,10.0.0.1", False), ("0.0.0.0", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert load(environ={}, assignments=[f"http.host={host}"]).http.is_loopback is loopback


# --- secrets -----------------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    tree = Settings(data_dir=tmp_path / "deep" / "var")
    first, second = with_secrets(tree), with_secrets(tree)
    assert first.admin_token == second.admin_token
    assert first.token_secret == second.token_secret
    assert len({first.admin_token, first.token_secret, *first.turn.secrets}) == 3
    assert first.turn.secrets == second.turn.secrets
    assert len(first.token_secret) >= settings_values.MIN_SECRET_BYTES
    assert tree.data_dir.stat().st_mode & 0o777 == 0o700
    files = list(tree.data_dir.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_a_chosen_secret_makes_no_file(tmp_path: Path) -> None:
    environ = {
        "MOSAIQUE_DATA_DIR": str(tmp_path / "var"), "MOSAIQUE_AUTH__SECRET": SECRET,
        "MOSAIQUE_AUTH__ADMIN_TOKEN": "tok", "MOSAIQUE_TURN__SECRET": "s",
    }  # fmt: skip
    tree = with_secrets(load(environ=environ))
    assert (tree.admin_token, tree.token_secret) == ("tok", SECRET)
    assert not tree.data_dir.exists()


@pytest.mark.parametrize("switch", [{"enabled": False}, {"mode": "off"}])
def test_without_a_relay_there_is_no_secret_of_it(tmp_path: Path, switch: dict[str, object]) -> None:
    tree = with_secrets(Settings.model_validate({"data_dir": tmp_path, "turn": switch}))
    assert tree.turn.secrets == ()
    assert not (tmp_path / "turn-secret").exists()


def test_a_damaged_secret_is_not_used(tmp_path: Path) -> None:
    tree = Settings(data_dir=tmp_path)
    write(tmp_path / "token-secret", "")
    with pytest.raises(ConfigError, match="token-secret holds no secret"):
        with_secrets(tree)


def test_a_data_dir_that_cannot_be_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(ConfigError, match="data_dir"):
        with_secrets(Settings(data_dir=tmp_path / "file" / "var"))


def test_printed_toml_is_read_back_the_same_with_secrets_masked(tmp_path: Path) -> None:
    tree = load(
        environ={
            "MOSAIQUE_DATA_DIR": f"{tmp_path}/with \"quotes\" and \x7f", "MOSAIQUE_AUTH__SECRET": SECRET,
            "MOSAIQUE_TURN__URLS": "stun:a,turn:b", "MOSAIQUE_TURN__SECRET": SECRET, "MOSAIQUE_AUTH__OPEN_ROOMS": "no",
        }
    )  # fmt: skip
    text = to_toml(tree)
    assert SECRET not in text
    assert SECRET not in repr(tree)
    assert tomllib.loads(text)["auth"] == {"secret": settings_values.MASK, "open_rooms": False}
    without = "\n".join(line for line in text.splitlines() if settings_values.MASK not in line)
    again = load(file=write(tmp_path / "m.toml", without), environ={})
    assert again.model_dump(exclude={"auth", "turn"}) == tree.model_dump(exclude={"auth", "turn"})
    with pytest.raises(ConfigError, match=re.escape("is the mask")):
        load(file=write(tmp_path / "m.toml", text), environ={})


# --- stores --------------------------------------------------------------------------------------------------


def test_an_american_region_of_europe_is_refused_with_host_and_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            environ={},
            assignments=[
                "archive.url=s3://films", "archive.endpoint=https://s3.eu-west-3.amazonaws.com",
                "archive.region=eu-west-3", "archive.access_key=AK", "archive.secret_key=SK-hidden",
            ],
        )  # fmt: skip
    assert "s3.eu-west-3.amazonaws.com is refused as an archive: it belongs to Amazon" in str(caught.value)
    assert "SK-hidden" not in str(caught.value)


def test_a_preset_and_a_second_store() -> None:
    settings = load(environ={}, assignments=[*S3, "archive.second_url=file:/copies"])
    places = settings.archive.places()
    assert places.first.where == "s3.fr-par.scw.cloud/films"
    assert places.second is not None
    assert places.second.folder == "/copies"
    assert "SK-hidden" in settings.secret_texts()
    text = to_toml(settings)
    assert "SK-hidden" not in text
    shown = tomllib.loads(text)["archive"]
    assert (shown["endpoint"], shown["region"]) == ("https://s3.fr-par.scw.cloud", "fr-par")
    assert "# second_endpoint is not set" in text, "a folder has none"
    with_endpoint = [*S3, f"archive.endpoint={shown['endpoint']}", f"archive.region={shown['region']}"]
    assert load(environ={}, assignments=with_endpoint).archive.places().first == places.first


def test_the_key_of_the_encrypted_archive_is_made_once(tmp_path: Path) -> None:
    assignments = [f"data_dir={tmp_path}/var", "archive.encrypt=true"]
    first, second = (with_secrets(load(environ={}, assignments=assignments)) for _ in range(2))
    key = first.archive.places().first.encrypt_key
    assert key is not None
    assert key == second.archive.places().first.encrypt_key
    assert len(key_bytes(key.get_secret_value())) == 32
    assert key.get_secret_value() in first.secret_texts()
    plain = with_secrets(load(environ={}, assignments=assignments[:1]))
    assert plain.archive.places().first.encrypt_key is None
