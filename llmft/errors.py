"""Every error that llmft raises on purpose, each one a sentence for the user.

LlmftError                 the user can mend it; the CLI prints it and exits with 1
├── RecipeError            a recipe that is missing, malformed or contradicts itself
├── DialogueError          a dialogue line that breaks the record's rules (never quotes the words)
├── PromptError            a dialogue that cannot be rendered or masked with this template
├── CheckpointError        base, adapter or tokenizer files that are missing, damaged or do not fit
├── TrainingError          a training that must not go on, or cannot begin on this machine
├── ExportError            a GGUF that cannot be written
├── VerifyError            a GGUF that is not the model that was trained
├── StoreError             the desk's database refuses
│   ├── NotStoredError     nothing of that name is there
│   ├── ConflictError      it is taken, ended, or asked for twice in two ways
│   └── StoreDownError     the database does not answer
├── BackendError           the model behind the service does not answer
│   └── BusyError          too many wait for it
├── GateError              a model that must not be handed on, or a gate without figures to judge by
├── MissingExtraError      an optional part of the installation is absent
└── DiskError              too little space, or a place that cannot be written

A message names the value, the rule and what to do next; file, line and field where there are any.
"""

from __future__ import annotations


class LlmftError(Exception):
    """Base of the tree: one clear sentence, exit code 1."""


class RecipeError(LlmftError):
    """A recipe cannot be used."""


class DialogueError(LlmftError):
    """A dialogue breaks the record's rules."""


class PromptError(LlmftError):
    """A dialogue cannot become tokens and labels."""


class CheckpointError(LlmftError):
    """Model files are missing, damaged or do not fit together."""


class TrainingError(LlmftError):
    """A training must not go on, or cannot begin on this machine."""


class ExportError(LlmftError):
    """A GGUF cannot be written."""


class VerifyError(LlmftError):
    """A GGUF differs from the model that was trained."""


class StoreError(LlmftError):
    """The desk's database refuses."""


class NotStoredError(StoreError):
    """Nothing of that name is stored."""


class ConflictError(StoreError):
    """What is asked for is taken or ended, or was asked for with the same key in another way."""


class StoreDownError(StoreError):
    """The database does not answer; whether the last change was made can be seen by repeating it with its key."""


class BackendError(LlmftError):
    """The model behind the service, or the server that holds it, does not answer."""


class BusyError(BackendError):
    """Too many requests wait for the model."""


class GateError(LlmftError):
    """A model failed its gate, or there is nothing to judge it by."""


class MissingExtraError(LlmftError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module!r} is not installed; install it with: pip install 'llmft[{extra}]'")


class DiskError(LlmftError):
    """The disk is full or the folder cannot be written."""
