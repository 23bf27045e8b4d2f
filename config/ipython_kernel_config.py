"""Settings of every Python kernel of this environment, read before a notebook's first cell.

They are installed into the environment's etc/ipython. After an edit, `make lab` installs them anew.
"""

import os
import sys
import warnings

from quartet import compiled, lighter

# One thread for each of PyTorch's, NumPy's and scikit-learn's operations. The lessons are small:
# more threads gain nothing there, and on busy cores they wait for each other (a fit of seconds
# took minutes). It also makes sums repeat on any number of cores.
# For a full-size run, say how many: OMP_NUM_THREADS=8 make lab
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On an NVIDIA GPU, TensorFlow and JAX would round the inputs of float32 products to 10 bits of
# mantissa (TF32) and PyTorch would not. For the same numbers, nobody does.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

# TensorFlow's C++ side tells of errors only, not of each library that it opens.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# JAX finds again what an earlier kernel has compiled. Off: QUARTET_JIT_CACHE=0 make lab
for name, value in compiled.settings().items():
    os.environ.setdefault(name, value)
warnings.filterwarnings("ignore", message=compiled.HALF_READ)  # it compiles that program, then

# Where TensorFlow is installed, TensorBoard imports it to read and write its files. Its own code
# can do that, too, and takes over where it finds a module of this name. So a PyTorch notebook does
# not wait for TensorFlow.
sys.meta_path.insert(0, lighter.TensorBoardAlone)

# What C++ code prints before that setting is heard goes to the terminal, not in red into the first
# cell. The price: so does the output of programs that a cell starts with subprocess.
c = get_config()  # noqa: F821
c.IPKernelApp.capture_fd_output = False

# A kernel listens on 127.0.0.1 only; that it does so unencrypted needs no warning at each start.
c.IPKernelApp.log_level = "ERROR"

# Built notebooks say Python 3, whoever's Python runs them. A kernel that names its exact version
# would make JupyterLab change, and offer to save, every notebook that is only opened.
from ipykernel.ipkernel import IPythonKernel  # noqa: E402

IPythonKernel.language_info["version"] = "3"
