"""Several servers behind one address: each with its own model and jobs, and a front that knows who holds which.

Nothing here knows how they reach each other; ``recipes/serve/ray.py`` lets Ray do that.
"""

from unireel.serving.replicas.front import Away, Replica, create_front
from unireel.serving.replicas.member import Member, Spec
from unireel.serving.replicas.passing import Passed

__all__ = ["Away", "Member", "Passed", "Replica", "Spec", "create_front"]
