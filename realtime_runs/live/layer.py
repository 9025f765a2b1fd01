"""The channel layer, if there is one that reaches other processes."""

from channels.layers import BaseChannelLayer, InMemoryChannelLayer, get_channel_layer

from realtime_runs.conf import app_settings


def carrying_layer() -> BaseChannelLayer | None:
    """The layer that carries bells between processes; None when there is none (the in-memory layer reaches nobody)."""
    layer = get_channel_layer(app_settings.CHANNEL_LAYER)
    return None if layer is None or isinstance(layer, InMemoryChannelLayer) else layer
