"""One member of a sum by Gloo (torch.distributed), for scripts/reducebench, which starts one in each network namespace:

    go build -o /tmp/reducebench ./scripts/reducebench && /tmp/reducebench -python .venv/bin/python

The first line of standard input is the task, as JSON; each line after it is a round. A line of JSON goes out for each.
"""
import json
import os
import sys
import time

import numpy
import torch
import torch.distributed as dist

task = json.loads(sys.stdin.readline())
os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
torch.set_num_threads(1)
gradient = torch.from_numpy(numpy.fromfile(task["dir"] + "/tensor", dtype="<f4", count=task["params"]))
dist.init_process_group("gloo", init_method="tcp://" + task["addrs"][0], rank=task["rank"], world_size=len(task["addrs"]))
sums = gradient.clone()
dist.all_reduce(sums)
print(json.dumps({}), flush=True)
for _ in sys.stdin:
    sums.copy_(gradient)
    began, busy = time.perf_counter(), time.process_time()
    dist.all_reduce(sums)
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - busy, "way": "gloo", "first": float(sums[0])}), flush=True)
