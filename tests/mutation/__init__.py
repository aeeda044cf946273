"""The defences that `make mutation` takes away, one at a time, to see a test fail.

A test of an attack proves something only if it fails without the defence. Each line of a table here
removes one in a copy of the project and runs the tests named for it, of which one must fail; in the
copy as it is, all must pass. `docs/threats.md` says which line belongs to which threat.
"""

from tests.mutation import accounts, consent, faults, gate, identity, links
from tests.mutation.base import ROOT as ROOT
from tests.mutation.base import Mutation as Mutation

TABLE = (
    *gate.TABLE,
    *links.TABLE,
    *identity.TABLE,
    *accounts.TABLE,
    *faults.TABLE,
    *consent.TABLE,
)
