"""Property tests have no deadline: a shared machine may pause any of them."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
