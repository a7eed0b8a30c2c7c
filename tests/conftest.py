"""What all tests share: how hypothesis searches, so that a failure is found again."""

import os

from hypothesis import HealthCheck, settings

# Two cores are shared by everything that runs: a slow example is no failure.
settings.register_profile(
    "default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
