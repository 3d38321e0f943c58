"""The secrets that nobody chose: generated once, kept in ``data_dir``, read only by the server's own user."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import BaseModel, SecretStr

from mixer.errors import ConfigError
from mixer.settings import Settings
from mixer.settings_values import BEARER, MIN_SECRET_BYTES


def make_data_dir(settings: Settings) -> Path:
    """``data_dir``, made 0700 when it is not there. Raises ``ConfigError`` when it cannot be."""
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"data_dir: takes a directory to write to; {path}: {error.strerror}") from None
    return path


def with_secrets(settings: Settings) -> Settings:
    """The same tree with the secrets that nobody chose: kept in ``data_dir``, generated at the first start."""
    generated: dict[str, SecretStr] = {}
    if settings.auth.admin_token is None:
        generated["admin_token"] = SecretStr(_kept(make_data_dir(settings) / "admin-token"))
    if settings.auth.secret is None:
        generated["secret"] = SecretStr(_kept(make_data_dir(settings) / "token-secret"))
    update: dict[str, BaseModel] = {}
    if generated:
        update["auth"] = settings.auth.model_copy(update=generated)
    if settings.turn.is_used and not settings.turn.secrets:
        secret = SecretStr(_kept(make_data_dir(settings) / "turn-secret"))
        update["turn"] = settings.turn.model_copy(update={"secret": secret})
    if settings.archive.encrypt and settings.archive.encrypt_key is None:
        key = SecretStr(_kept(make_data_dir(settings) / "archive-encryption-key"))
        update["archive"] = settings.archive.model_copy(update={"encrypt_key": key})
    return settings.model_copy(update=update) if update else settings


def _kept(path: Path) -> str:
    """The secret in ``path``; whoever makes the file first decides what it is, also against a second start."""
    try:
        try:
            return _read_secret(path)
        except FileNotFoundError:
            pass
        # Written aside and linked into place: no reader ever sees a file that is half written.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return _read_secret(path)
    except OSError as error:
        raise ConfigError(f"data_dir: the secret in {path} cannot be kept: {error.strerror}") from None


def _read_secret(path: Path) -> str:
    secret = path.read_bytes().decode("ascii", "replace").strip()
    if not BEARER.fullmatch(secret) or len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"data_dir: {path} holds no secret; delete it to have a new one made")
    path.chmod(0o600)
    return secret
