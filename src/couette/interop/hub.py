"""A model of the Hugging Face hub, fetched: the parts that are used, each in one variant."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from couette.errors import CheckpointError, ConfigError
from couette.interop.folders import INDEX, PARTS, choose_weights
from couette.interop.libraries import quiet

_SECONDS = 10.0
"""How long the hub is waited for."""

_WEIGHED = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_PLAIN = (".json", ".txt", ".model")


def fetched(name: str, parts: Container[str] = PARTS) -> Path:
    """The folder of a model of the hub, fetched into that library's own cache or found there.

    A token is taken from where `hf auth login` put it, or from HF_TOKEN.

    Args:
        name: owner/name.
        parts: of a pipeline, those that are used.

    Raises:
        CheckpointError: the hub has no such model, hands it out to others only, or can't be
            reached while it is not in the cache; or its weights are pickles.
        ConfigError: the package huggingface_hub is missing.
    """
    hub = _library(name)
    errors = hub.errors
    try:
        with quiet():
            return _snapshot(hub, name, parts)
    except CheckpointError:
        raise
    except errors.GatedRepoError:
        raise CheckpointError(
            f"'{name}' is handed out only to those who have accepted its terms: do so on its page "
            "of the Hugging Face hub, then run `hf auth login`, or put the token into HF_TOKEN."
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"There is no folder '{name}', and the Hugging Face hub has no such model, or none "
            "that is open to you (run `hf auth login`, or put a token into HF_TOKEN); check the "
            "name."
        ) from None
    except Exception as error:  # no network, in the words of whatever library it rests on
        return _cached(hub, name, error)


def _snapshot(hub: Any, name: str, parts: Container[str]) -> Path:
    """What is used of one commit, the latest."""
    commit, wanted = _listed(hub, name, parts)
    found = Path(hub.snapshot_download(name, allow_patterns=wanted))
    if found.name == commit:
        return found
    # It has changed since it was listed. What was fetched is of one commit, the later one; what
    # that has of other names is still to be fetched.
    _, wanted = _listed(hub, name, parts, found.name)
    return Path(hub.snapshot_download(name, revision=found.name, allow_patterns=wanted))


def _listed(
    hub: Any, name: str, parts: Container[str], commit: str | None = None
) -> tuple[str | None, list[str]]:
    """A commit, the latest where none is given, and which of its files are used."""
    told = hub.HfApi().model_info(name, revision=commit, timeout=_SECONDS)
    return told.sha, needed([each.rfilename for each in told.siblings or ()], name, parts)


def _cached(hub: Any, name: str, error: Exception) -> Path:
    """The model as an earlier run fetched it, where the hub could not be asked."""
    try:
        with quiet():
            return Path(hub.snapshot_download(name, local_files_only=True))
    except Exception as absent:
        # Files that are not used here were never fetched; of those that are, whoever opens them
        # sees whether they are there.
        if path := getattr(absent, "snapshot_path", None):
            return Path(path)
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"There is no folder '{name}', and it could not be had from the Hugging Face hub "
            f"({reason[:200]}); check the name and the network, or give a folder."
        ) from error


def needed(files: Iterable[str], name: str, parts: Container[str] = PARTS) -> list[str]:
    """Which of a model's files are used: settings and tokenizers, and of each part's weights one
    variant as safetensors.

    Args:
        files: their paths.
        name: the model's, for messages.
        parts: of a pipeline, those that are used.

    Raises:
        CheckpointError: it is no model in diffusers' layout, or a part's weights are pickles.
    """
    folders: dict[str, list[str]] = {}
    for path in map(PurePosixPath, files):
        if len(path.parts) <= 2:
            folders.setdefault("/".join(path.parts[:-1]), []).append(path.name)
    single = INDEX not in folders.get("", ())
    if single and "config.json" not in folders.get("", ()):
        raise CheckpointError(
            f"'{name}' is no model in diffusers' layout: it has neither {INDEX} nor the "
            "config.json of a network; choose another model."
        )
    chosen = []
    for folder, names in folders.items():
        if folder and (single or folder not in parts):
            continue
        kept = [each for each in names if each.endswith(_PLAIN)]
        if folder in _WEIGHED or (single and not folder):
            kept += choose_weights(names, f"{name}/{folder}".rstrip("/"))[1]
        chosen += [f"{folder}/{each}".lstrip("/") for each in kept]
    return sorted(chosen)


def _library(name: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise ConfigError(
            f"There is no folder '{name}'; a model of the Hugging Face hub needs further "
            "packages: pip install 'couette[diffusers]'"
        ) from None
    return huggingface_hub
