"""Records best prices to a Parquet file, and reads them again: `record.py [FILE [SECONDS]]`."""

import sys
import time

import tickfan

path = sys.argv[1] if len(sys.argv) > 1 else "bbo.parquet"
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0

with tickfan.Client() as client, client.record(path, "bbo", "sim:*", budget_ms=0) as recorder:
    time.sleep(seconds)

print(recorder.to_pandas()[["symbol", "seq", "bid_price", "ask_price", "received_ns"]].tail())
print(f"{recorder.rows} rows in {path}")
