"""Shapes and types in the signatures of nad are checked while the tests run."""

import hypothesis
import torch
import transformers.utils.logging
from jaxtyping import install_import_hook

# Before the first import of nad; it stays installed, since nad imports its modules when they are first used.
install_import_hook("nad", "checking.checked")
# Products of a few dozen numbers: a second thread only waits.
torch.set_num_threads(1)
# Models that tests save.
transformers.utils.logging.disable_progress_bar()
# The same examples on every run, and no time limit: the machine may be busy.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("suite")
