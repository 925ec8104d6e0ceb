"""What a worker is started with: the app's name, the settings of the command line, and Celery's words."""

import os
from collections.abc import Mapping, Sequence

import attrs

from hybridpool._cli.celery_options import CeleryWords
from hybridpool._cli.options import layer_of
from hybridpool._config import Layer, celery_names
from hybridpool.errors import ConfigError


@attrs.frozen(kw_only=True)
class Start:
    """What the command line says."""

    app: str
    layer: Layer
    words: CeleryWords
    show_banner: bool
    #: why an app of ours cannot be started: the result backend is one that only Celery has
    refusal: ConfigError | None = None


def read_start(app: str, given: Sequence[Mapping[str, object]], words: CeleryWords, *, show_banner: bool) -> Start:
    """Parse the settings, and put what Celery reads from the environment there.

    :param given: settings by name; the strongest first.
    :raises ConfigError: if a value does not fit.
    """
    refusal = None
    try:
        layer_of({"result_backend": words.variables.get("CELERY_RESULT_BACKEND")})
    except ConfigError as error:
        scheme = words.variables["CELERY_RESULT_BACKEND"].partition("://")[0].partition("+")[0]
        if scheme not in celery_names.BACKENDS:
            raise
        # It depends on the app: Celery has more result backends than we have.
        refusal = error
        given = [{name: value for name, value in one.items() if name != "result_backend"} for one in given]
    layer = layer_of(*given)
    os.environ.update(words.variables)
    return Start(app=app, layer=layer, words=words, show_banner=show_banner and not words.is_quiet, refusal=refusal)
