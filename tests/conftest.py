"""Shapes and types in the signatures of nad are checked while the tests run."""

import torch
from jaxtyping import install_import_hook

# Before the first import of nad; it stays installed, since nad imports its modules when they are first used.
install_import_hook("nad", "checking.checked")
# Products of a few dozen numbers: a second thread only waits.
torch.set_num_threads(1)
