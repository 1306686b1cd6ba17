"""All faults, in the order of the table."""

from __future__ import annotations

from tests.mutants.answers import ANSWERS
from tests.mutants.interventions import INTERVENTIONS
from tests.mutants.mechanisms import MECHANISMS
from tests.mutants.trainings import TRAININGS

FAULTS = (*ANSWERS, *INTERVENTIONS, *TRAININGS, *MECHANISMS)
