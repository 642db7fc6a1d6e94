"""What holds for every test: property tests have no time limit of their own, because machines are busy."""

from hypothesis import settings

settings.register_profile("pamctl", deadline=None)
settings.load_profile("pamctl")
