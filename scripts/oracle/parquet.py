"""Write data/testdata/chats.parquet, as pyarrow (and so Hugging Face's datasets) writes it, with the same rows as JSONL beside it.

    python scripts/oracle/parquet.py data/testdata        # needs pyarrow
"""
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"messages": [{"role": "user", "content": "Où <b> & \"q\"?"}, {"role": "assistant", "content": "日本"}], "hard": 1.5, "note": None, "tags": ["a", "b"]},
    {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "two\nlines"}, {"role": "assistant", "content": "x"}], "hard": 0.25, "note": "n", "tags": []},
] + [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i * i}"}], "hard": float(i), "note": None, "tags": ["t"] * (i % 3)} for i in range(300)]

pq.write_table(pa.Table.from_pylist(ROWS), sys.argv[1] + "/chats.parquet", compression="zstd", row_group_size=100)
with open(sys.argv[1] + "/chats.jsonl", "w", encoding="utf-8") as f:
    for row in ROWS:
        f.write(json.dumps(row, ensure_ascii=False) + "\n")
