"""Has PyTorch do the work."""

import numpy as np
import torch

for one, name in ((relu, "relu"), (sigmoid, "sigmoid")):
    one.forward = lambda x, work=getattr(torch, name): work(torch.from_numpy(np.ascontiguousarray(x))).numpy()
