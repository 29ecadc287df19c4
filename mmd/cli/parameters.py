"""Parameters that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mmd.control.models.setups import Selected


class ModelId(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """The id or another name of a registered model; completes to the ids."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from mmd.control.models.aliases import id_for

        return id_for(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from mmd.errors import MmdError
        from mmd.registry.store import Registry

        try:
            models = Registry().all()
        except MmdError:
            return []  # a completion cannot show errors; the verb will
        return [
            CompletionItem(model.id, help=f"{model.facts.type} {model.facts.quant}")
            for model in models
            if model.id.startswith(incomplete)
        ]


class NewModelId(click.ParamType):  # type: ignore[type-arg]  # as above
    """An id for a model that is registered now. It cannot be the name of a setup."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from mmd.control.models.setups import refuse_name_of_setup

        refuse_name_of_setup(value)
        return value


class ModelOrSetup(ModelId):
    """The id or another name of a registered model, or the name of a setup; completes to both."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Selected:
        from mmd.control.models.setups import select

        return select(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [*super().shell_complete(ctx, param, incomplete), *_setups(incomplete)]


class SetupName(click.ParamType):  # type: ignore[type-arg]  # as above
    """The name of a setup; completes to these names."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _setups(incomplete)


class EstimateArgument(ModelId):
    """A model id, a path, or a repository on the hub."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class EngineName(click.ParamType):  # type: ignore[type-arg]  # as above
    """The name of an engine that mmd can install; completes to these names."""

    name = "engine"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from mmd.control.install.engines import install_names

        return [CompletionItem(name) for name in install_names() if name.startswith(incomplete)]


class KeyName(click.ParamType):  # type: ignore[type-arg]  # as above
    """The name of an API key; completes to the existing names."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from mmd.errors import MmdError
        from mmd.gateway.http.api_keys import KeyFile

        try:
            keys = KeyFile().all()
        except MmdError:
            return []
        return [CompletionItem(key.name, help=f"for {key.purpose}") for key in keys if key.name.startswith(incomplete)]


def _setups(incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from mmd.errors import MmdError
    from mmd.settings import read_settings

    try:
        setups = read_settings().setups
    except MmdError:
        return []
    return [
        CompletionItem(name, help=f"setup of {', '.join(table.models)}")
        for name, table in setups.items()
        if name.startswith(incomplete)
    ]


as_json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
model_id = click.argument("model_id", metavar="ID", type=ModelId())
model_or_setup = click.argument("selection", metavar="ID|SETUP", type=ModelOrSetup())
some_model_or_setup = click.argument("selection", metavar="[ID|SETUP]", type=ModelOrSetup(), required=False)
some_model_id = click.argument("model_id", metavar="[ID]", type=ModelId(), required=False)
new_id = click.option(
    "--id",
    "model_id",
    metavar="ID",
    type=NewModelId(),
    help="Use this id instead of one derived from the name.",
)
machine_file = click.option(
    "--machine",
    "machine_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Plan for the machine in FILE, as `mmd machine --json` prints it.",
)
model_ids = click.argument("model_ids", metavar="[ID]...", type=ModelId(), nargs=-1)
